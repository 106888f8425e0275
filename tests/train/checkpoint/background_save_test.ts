import { assert, assertEquals } from "@std/assert";
import { BackgroundSave } from "../../../train/checkpoint/background_save.ts";

/** A save that goes on when it is told to. */
function saving() {
  const copied = Promise.withResolvers<void>(), done = Promise.withResolvers<number>();
  return { copied, done, saving: { copied: copied.promise, written: copied.promise, done: done.promise } };
}

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

Deno.test("training stands still until states are copied, and not while they are written", async () => {
  const one = saving(), save = await BackgroundSave.begin(() => Promise.resolve(one.saving), undefined);
  assert(save.isCopying);
  setTimeout(one.copied.resolve, 30);
  await save.untilCopied();
  assertEquals([save.isCopying, save.ended], [false, undefined]);
  const { stallMs } = save.times;
  assert(stallMs >= 25, `${stallMs} ms`);
  await wait(30);
  one.done.resolve(7);
  await wait(1);
  assertEquals(save.ended, { bytes: 7 });
  assertEquals(save.times.stallMs, stallMs);
  assert(save.times.ms >= stallMs + 25, `${save.times.ms} ms`);
});

Deno.test("a save that fails ends with its error, and whoever finishes it learns of that", async () => {
  const one = saving(), save = await BackgroundSave.begin(() => Promise.resolve(one.saving), undefined);
  one.copied.resolve();
  const error = new Error("no room"), outcome = save.finish();
  setTimeout(() => one.done.reject(error), 30);
  assertEquals([await outcome, save.ended], [{ error }, { error }]);
  const { ms, stallMs } = save.times;
  assert(ms >= 25 && stallMs > 0.9 * ms, `training stood still for ${stallMs} of ${ms} ms`);
});
