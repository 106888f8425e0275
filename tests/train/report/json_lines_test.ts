import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { JsonLines, parseJsonLines } from "../../../train/report/json_lines.ts";
import { temporaryFolder } from "../../data/fixture.ts";

const lines = async (path: string) => (await Deno.readTextFile(path)).trimEnd().split("\n").map((l) => JSON.parse(l));

/** Notes warnings. */
function listener() {
  const warnings: string[] = [];
  return { warnings, warn: (text: string) => void warnings.push(text) };
}

Deno.test("each line is in the file at once, and a run that goes on in it begins with a line of its own", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/new/folder/metrics.jsonl`, { warnings, warn } = listener();
  new JsonLines(path, { seed: 0 }, { warn }).write({ step: 1 });
  assertEquals(await lines(path), [{ run: { seed: 0 } }, { step: 1 }]);
  new JsonLines(path, { seed: 1 }, { warn }).write({ step: 2 });
  assertEquals(await lines(path), [{ run: { seed: 0 } }, { step: 1 }, { run: { seed: 1 } }, { step: 2 }]);
  assertEquals(warnings, []);
});

Deno.test("a file whose last line was torn is gone on with on a line of its own", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/metrics.jsonl`, { warn } = listener();
  await Deno.writeTextFile(path, '{"step":1}\n{"step":');
  new JsonLines(path, {}, { warn }).write({ step: 2 });
  assertEquals(await Deno.readTextFile(path), '{"step":1}\n{"step":\n{"run":{}}\n{"step":2}\n');
});

Deno.test("a file that cannot be written any more is told once, and what it missed comes when it can be", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/out/metrics.jsonl`, { warnings, warn } = listener();
  const file = new JsonLines(path, {}, { warn });
  file.write({ step: 1 });
  await Deno.rename(`${folder.path}/out`, `${folder.path}/away`);
  for (const step of [2, 3]) file.write({ step });
  assertEquals(warnings.length, 1);
  assertMatch(warnings[0], /^Cannot write .*\/out\/metrics\.jsonl: .*; the run goes on$/);
  await Deno.rename(`${folder.path}/away`, `${folder.path}/out`);
  file.write({ step: 4 });
  assertEquals(warnings.slice(1), [`${path} can be written again, and has all that came meanwhile`]);
  assertEquals(await lines(path), [{ run: {} }, ...[1, 2, 3, 4].map((step) => ({ step }))]);
});

Deno.test("at its end a run writes what it kept, or says how many lines are lost", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/out/metrics.jsonl`, { warnings, warn } = listener();
  for (const isBack of [true, false]) {
    {
      using file = new JsonLines(path, {}, { warn });
      await Deno.rename(`${folder.path}/out`, `${folder.path}/away`);
      for (const step of [1, 2]) file.write({ step });
      if (isBack) await Deno.rename(`${folder.path}/away`, `${folder.path}/out`);
    }
    if (isBack) assertEquals(await lines(path), [{ run: {} }, { step: 1 }, { step: 2 }]);
  }
  assertEquals(warnings.length, 3); // each that it cannot be written, and the end of the second
  assertMatch(warnings[2], /^The last 2 lines of .*\/out\/metrics\.jsonl are lost, as it cannot be written: /);
});

/** A file system of some KiB, or undefined where this process may not make one. */
async function smallDisk(path: string, kib: number): Promise<AsyncDisposable | undefined> {
  const run = async (command: string, ...args: string[]) => {
    const { success } = await new Deno.Command(command, { args, stdout: "null", stderr: "null" }).output();
    return success;
  };
  try {
    if (!await run("mount", "-t", "tmpfs", "-o", `size=${kib}k`, "tmpfs", path)) return undefined;
  } catch {
    return undefined;
  }
  return { [Symbol.asyncDispose]: () => run("umount", path).then(() => {}) };
}

Deno.test("a full disk tears no line and lets no run start; lines that did not fit come once there is room", async (t) => {
  await using folder = await temporaryFolder();
  await using disk = await smallDisk(folder.path, 64);
  await t.step({
    name: "on a disk of 64 KiB",
    ignore: disk === undefined, // needs root
    fn: async () => {
      const path = `${folder.path}/metrics.jsonl`, { warnings, warn } = listener(), text = "x".repeat(1000);
      await Deno.writeFile(`${folder.path}/other`, new Uint8Array(24 * 1024));
      const file = new JsonLines(path, {}, { warn });
      for (let step = 1; step <= 60; step++) file.write({ step, text });
      const whole = await lines(path); // each parses
      assertEquals([warnings.length, (await Deno.readTextFile(path)).endsWith("\n")], [1, true]);
      assertEquals(whole.length > 20 && whole.length < 60, true, `${whole.length} lines`);
      assertThrows(() => new JsonLines(`${folder.path}/late.jsonl`, { text }, { warn }), Error, "No space left");
      await Deno.remove(`${folder.path}/other`);
      file.write({ step: 61 });
      assertEquals((await lines(path)).map(({ step }) => step ?? 0), Array.from({ length: 62 }, (_, i) => i));
      assertEquals(warnings.length, 2);
    },
  });
});

Deno.test("lines that hold no object are left out, which one warning tells with file and line", () => {
  const { warnings, warn } = listener();
  assertEquals(parseJsonLines('{"a":1}\n{"b":\n\n{"c":3}', "out/m.jsonl", warn), [{ a: 1 }, { c: 3 }]);
  assertEquals(warnings, ["warning: out/m.jsonl:2 is no line of JSON and is left out"]);
  assertEquals(parseJsonLines('5\n{"a":1}\n[]\nnull\n', "m.jsonl", warn), [{ a: 1 }]);
  assertEquals(
    warnings[1],
    "warning: m.jsonl:1 is no line of JSON and is left out (nor 2 more, the last at 4)",
  );
  assertEquals([parseJsonLines("", "m.jsonl", warn), warnings.length], [[], 2]);
});
