import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import {
  bytes,
  differences,
  duration,
  forecast,
  number,
  Run,
  secondsLeft,
  statusOf,
} from "../../../../../train/report/live/page/runs.js";
import { COLUMNS, VALIDATION_COLUMNS } from "../../../../../train/report/live/run_log.ts";

const facts = { columns: COLUMNS, validationColumns: VALIDATION_COLUMNS };
const started = "2026-01-01T00:00:00Z";

/** Rows of steps with their losses, a second each. */
const rows = (steps: readonly number[], loss: (step: number) => number) =>
  steps.map((step) => Object.keys(COLUMNS).map((name) => name === "step" ? step : name === "loss" ? loss(step) : 1));
const upTo = (n: number) => Array.from({ length: n }, (_, i) => i + 1);

function run(steps: number, from?: number): Run {
  const run = new Run("a", "a", false, facts);
  run.add({ begin: { started, from, config: { training: { steps }, lr_scheduler: { warmup_steps: 10 } } } });
  return run;
}

Deno.test("a run that goes on from a checkpoint forgets the steps behind it, and keeps those before", () => {
  const one = run(10);
  one.add({ rows: rows(upTo(6), (s) => s), validations: [[1, 9, 8, null], [5, 7, 8, null]], samples: [[5, "x"]] });
  assertEquals(one.smooth("loss", 0).length, 6);
  one.add({ begin: { started, from: 4, config: { training: { steps: 10 } } } });
  assertEquals([one.rows.step, one.rows.seconds, one.validations.step, one.samples], [
    [1, 2, 3, 4],
    [1, 2, 3, 4],
    [1],
    [],
  ]);
  one.add({ rows: rows([5, 6], () => 100) });
  assertEquals([one.rows.loss, one.smooth("loss", 0)], [[1, 2, 3, 4, 100, 100], [1, 2, 3, 4, 100, 100]]);
});

Deno.test("smoothing begins at the first value, and goes on where it was", () => {
  const one = run(10);
  one.add({ rows: rows([1], () => 8) });
  assertAlmostEquals(one.smooth("loss", 0.9)[0], 8, 1e-9);
  one.add({ rows: rows([2], () => 6) });
  assertAlmostEquals(one.smooth("loss", 0.9)[1], (0.09 * 8 + 0.1 * 6) / 0.19, 1e-9);
});

Deno.test("a loss that falls as a power of the step is forecast to its end, and none that rises", () => {
  const falling = run(1000), rising = run(1000), few = run(1000), law = (s: number) => 2 + 6 * s ** -0.4;
  falling.add({ rows: rows(upTo(300), law) });
  rising.add({ rows: rows(upTo(300), (s) => s) });
  few.add({ rows: rows(upTo(20), law) });
  const ahead = forecast(falling)!;
  assertAlmostEquals(ahead.loss, law(1000), 0.01);
  assertEquals([ahead.x[0], ahead.x.at(-1)], [300, 600]);
  assertEquals([forecast(rising), forecast(few)], [undefined, undefined]);
});

Deno.test("the time to go is that of the steps, with what the run has spent beside them so far", () => {
  const one = run(100);
  one.add({ rows: rows(upTo(50), () => 3) });
  const at = (seconds: number) => Date.parse(started) + 1000 * seconds;
  assertAlmostEquals(secondsLeft(one, at(50)), 50, 1e-9);
  assertAlmostEquals(secondsLeft(one, at(75)), 75, 1e-9);
});

Deno.test("what a run is doing is told by its end, by its server, and by how long it has been quiet", () => {
  const one = run(100), state = (heard = true) => statusOf(one, heard).state;
  one.add({ rows: rows(upTo(50), () => 3) });
  assertEquals(state(), "running");
  one.quiet = 3600;
  assertEquals([state(), statusOf(one, true).text], ["failed", "no word for 1 h 0 min, after step 50 of 100"]);
  one.own = true;
  assertEquals([state(), state(false)], ["running", "failed"]);
  one.add({ end: { step: 50, stopped: "SIGINT" } });
  assertEquals([statusOf(one, false).text, state()], ["stopped by SIGINT after step 50", "stopped"]);
  one.add({ begin: { started, from: 50, config: { training: { steps: 100 } } } });
  assertEquals(state(), "running");
  one.add({ end: { step: 60, error: "the loss is NaN" } });
  assertEquals(statusOf(one, true).text, "failed after step 60: the loss is NaN");
});

Deno.test("runs differ in keys, not in where their file lies", () => {
  const [a, b] = [1, 2].map((lr) => {
    const one = run(10);
    one.add({
      begin: {
        config: { optimizer: { lr }, job: { config_file: `${lr}.toml`, dump_folder: `${lr}` }, debug: { seed: 0 } },
      },
    });
    return one;
  });
  assertEquals(differences([a, b]), [["optimizer.lr", "1", "2"]]);
});

Deno.test("numbers are short, and say so much that they can be compared", () => {
  assertEquals([0, 1.23456, 17_512, 3.2e6, 2e9, 0.00002].map((v) => number(v)), [
    "0",
    "1.235",
    "17.5k",
    "3.2M",
    "2G",
    "2e-5",
  ]);
  assertEquals([number(null), number(NaN)], ["-", "-"]);
  assertEquals([5, 125, 3700, 90_000].map(duration), ["5 s", "2 min 5 s", "1 h 1 min", "1 d 1 h"]);
  assertEquals([0, 1536, 3 * 2 ** 30].map(bytes), ["0 B", "1.5 KiB", "3.0 GiB"]);
  assert(duration(59.6) !== "60 s", duration(59.6));
});
