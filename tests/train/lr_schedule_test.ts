import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { type DecayType, lrFactor, lrPhases, type LrScheduleOptions } from "../../train/lr_schedule.ts";

const options = (warmupSteps: number, decayRatio: number | null, decayType: DecayType = "linear", minLrFactor = 0) => ({
  warmupSteps,
  totalSteps: 10,
  decayRatio,
  decayType,
  minLrFactor,
});

/** torchtitan's factors of steps 1 to 10. */
const vectors: [string, LrScheduleOptions, string][] = [
  ["linear", options(2, null), ".5 1 1 .875 .75 .625 .5 .375 .25 .125"],
  ["linear, a ratio that takes all", options(2, 0.8), ".5 1 1 .875 .75 .625 .5 .375 .25 .125"],
  ["sqrt", options(2, null, "sqrt"), ".5 1 1 .646447 .5 .387628 .292893 .209431 .133975 .064586"],
  ["cosine", options(2, null, "cosine"), ".5 1 1 .961940 .853553 .691342 .5 .308658 .146447 .038060"],
  ["linear, half of the run", options(2, 0.5), ".5 1 1 1 1 1 .8 .6 .4 .2"],
  ["sqrt, half of the run", options(2, 0.5, "sqrt"), ".5 1 1 1 1 1 .552786 .367544 .225403 .105573"],
  ["cosine, half of the run", options(2, 0.5, "cosine"), ".5 1 1 1 1 1 .904508 .654508 .345492 .095492"],
  ["cosine to a floor", options(2, 0.5, "cosine", 0.1), ".5 1 1 1 1 1 .914058 .689058 .410942 .185942"],
  ["linear to a floor", options(2, null, "linear", 0.1), ".5 1 1 .8875 .775 .6625 .55 .4375 .325 .2125"],
  ["linear, a decay that is cut", options(5, 0.8), ".2 .4 .6 .8 1 1 .8 .6 .4 .2"],
];

for (const [name, schedule, expected] of vectors) {
  Deno.test(`the factors are torchtitan's: ${name}`, () => {
    for (const [step, value] of expected.split(" ").entries()) {
      assertAlmostEquals(lrFactor(step, schedule), Number(value), 5e-7, `step ${step + 1}`);
    }
  });
}

Deno.test("the phases cover the run and one step more, so the last step still learns", () => {
  assertEquals(lrPhases(options(2, null)), { warmup: 2, stable: 1, decay: 8 });
  assertEquals(lrPhases(options(2, 0.5)), { warmup: 2, stable: 4, decay: 5 });
  assertEquals(lrPhases(options(0, 0)), { warmup: 0, stable: 11, decay: 0 });
  assert(lrFactor(9, options(2, null)) > 0);
});

Deno.test("half a step of decay rounds to the even neighbour", () => {
  assertEquals([0.25, 0.35, 0.15, 0.05].map((ratio) => lrPhases(options(0, ratio)).decay), [2, 4, 2, 0]);
});

Deno.test("a warm-up that is longer than the run is cut to it", () => {
  assertEquals(lrPhases(options(200, null)), { warmup: 10, stable: 1, decay: 0 });
  assertAlmostEquals(lrFactor(0, options(200, null)), 0.1);
  assertEquals(lrFactor(9, options(200, null)), 1);
});

Deno.test("beyond its end the schedule stays at the floor and never turns negative", () => {
  for (const step of [10, 11, 1000]) {
    assertEquals(lrFactor(step, options(2, null)), 0);
    assertEquals(lrFactor(step, options(2, null, "sqrt")), 0);
    assertAlmostEquals(lrFactor(step, options(2, 0.5, "cosine", 0.1)), 0.1);
  }
  assertEquals(lrFactor(20, options(200, null)), 0);
});
