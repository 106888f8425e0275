import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { durationText, ProgressBar, progressText, StepClock, takesText } from "../../../train/report/progress.ts";
import { tinyLlama } from "../../model/tiny.ts";

Deno.test("a bar says how far it is and how long it takes, within the width of the terminal", () => {
  const half = { step: 500, steps: 1000, secondsLeft: 125 };
  assertEquals(progressText(half, 80), `step 500 of 1,000 [${"#".repeat(19)}${".".repeat(19)}] 50 %  2 min 5 s to go`);
  assertEquals(progressText(half, 40).length <= 40, true);
  assertEquals(progressText({ ...half, step: 999, secondsLeft: null }, 24), "step 999 of 1,000 99 %");
});

Deno.test("the time to go is told from the second step on, and the first one does not count", () => {
  let ms = 0;
  const clock = new StepClock(() => ms),
    step = (n: number, took: number) => {
      ms += took;
      return clock.at(n, 10).secondsLeft;
    };
  assertEquals([step(1, 60_000), step(2, 1000), step(3, 3000)], [null, 8, 14]);
});

Deno.test("what is printed comes above the bar, which is gone at the end, and so is the hold on the console", () => {
  const written: string[] = [], { log } = console;
  console.log = (text: string) => written.push(`${text}\n`);
  try {
    const own = console.log;
    let ms = 0;
    {
      using bar = new ProgressBar({ write: (text) => written.push(text), width: () => 30 }, () => ms);
      console.log("before");
      bar.set({ step: 1, steps: 2, secondsLeft: null });
      bar.set({ step: 2, steps: 2, secondsLeft: 0 }); // too soon to be drawn
      console.log("line");
      ms += 1000;
      bar.set({ step: 2, steps: 2, secondsLeft: 0 });
    }
    assert(console.log === own);
  } finally {
    console.log = log;
  }
  const first = "step 1 of 2 [#####.....] 50 %", clear = "\r\x1b[K";
  assertEquals(written.slice(0, 5), ["before\n", clear + first, clear, "line\n", first]);
  assertEquals(written.slice(5), [`${clear}step 2 of 2 100 %  0 s to go`, clear]);
});

Deno.test("times have two units at most", () => {
  assertEquals([5, 59.7, 125, 3700, 90_000].map(durationText), [
    "5 s",
    "1 min 0 s",
    "2 min 5 s",
    "1 h 1 min",
    "1 d 1 h",
  ]);
});

Deno.test("what a run takes is told in steps, tokens, the least time, memory and, where it is saved, disk", () => {
  const model = tinyLlama(),
    flops = model.flopsPerToken(16),
    asked = { steps: 1000, tokensPerStep: 2048, seqLen: 16, devices: 1, gflops: 2 };
  const least = 1000 * 2048 * flops / 2e9, all = { ...asked, arenaBytes: 3 << 20 };
  const text = takesText(model, all);
  const seconds = Number(/at least (\d+) s of steps/.exec(text)?.[1]);
  assertEquals(Math.abs(seconds - least) <= 0.5, true, `${text}: ${least}`);
  assertEquals(
    text.replace(/\d+ s of/, "N s of"),
    "1,000 steps, 2,048,000 tokens, at least N s of steps, 3.0 MiB of memory",
  );
  assertEquals(takesText(model, { ...all, steps: 1 }).split(",")[0], "1 step");
  const saved = takesText(model, { ...all, devices: 4, save: { bytes: 1 << 30, count: 3 } });
  assertStringIncludes(saved, "3.0 MiB of memory on each rank, and on the disk up to 3 checkpoints of 1.0 GiB");
  assertEquals(Number(/at least (\d+) s/.exec(saved)?.[1]), Math.round(least / 4));
});
