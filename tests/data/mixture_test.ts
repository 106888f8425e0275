import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { sourceOf } from "../../data/mixture.ts";

Deno.test("after any number of rows each source has had its share of them, in every lane", () => {
  const weights = fc.array(fc.double({ min: 0.01, max: 10, noNaN: true }), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(weights, fc.nat(1000), (weights, lane) => {
      const total = weights.reduce((sum, weight) => sum + weight, 0), counts = weights.map(() => 0);
      for (let row = 0; row < 1000; row++) {
        counts[sourceOf(weights, lane, row)]++;
        counts.forEach((count, n) => {
          const due = (row + 1) * weights[n] / total;
          assert(Math.abs(count - due) < 6, `${count} rows of source ${n}, due ${due}`);
        });
      }
    }),
    { numRuns: 20 },
  );
});

Deno.test("lanes do not take the same source at the same time", () => {
  const picks = Array.from({ length: 64 }, (_, lane) => sourceOf([1, 1], lane, 5));
  const ones = picks.filter((source) => source === 1).length;
  assert(ones > 16 && ones < 48, String(picks));
});

Deno.test("one source alone is always taken, and a row has one source whatever its number", () => {
  assertEquals(sourceOf([0.1], 3, 2 ** 40), 0);
  assertEquals(sourceOf([1, 2], 3, 2 ** 40), sourceOf([2, 4], 3, 2 ** 40));
});
