import { assert, assertEquals, assertThrows } from "@std/assert";
import { attributeFault, type AttrType, dependsOnRank, type Schema } from "../../graph/attributes.ts";
import { f64 } from "../../graph/builder.ts";
import type { Attr } from "../../graph/ir.ts";
import { ops } from "../../graph/ops/mod.ts";
import { trace } from "../../graph/trace.ts";
import { passes } from "../../train/compile.ts";

const later = { plus: 0, terms: [{ axes: ["tp"], step: 4 }] };
/** For each type, what fits and what does not. */
const values: Record<AttrType, { fits: Attr[]; not: Attr[] }> = {
  flag: { fits: [true, false], not: [1, "true"] },
  number: { fits: [0.5, NaN], not: ["1", [1]] },
  integer: { fits: [-3], not: [0.5, Infinity, later] },
  integers: { fits: [[], [1, 2]], not: [1, [1, 0.5], ["1"]] },
  text: { fits: [""], not: [1, ["a"]] },
  texts: { fits: [["a"]], not: ["a", [1]] },
  sizes: { fits: [{ a: 1 }], not: [[1], { a: "1" }] },
  types: { fits: [[], [{ dtype: "f32", shape: [2] }]], not: [{ dtype: "f32", shape: [2] }, [{ shape: [2] }], [1]] },
  "rank integer": { fits: [1, later], not: [0.5, "1", { plus: 0 }] },
  "rank integers": { fits: [[1, later]], not: [later, [0.5]] },
  program: { fits: [{ constants: [], steps: [], results: [] }], not: [{ steps: [] }, "add"] },
};

for (const [type, { fits, not }] of Object.entries(values)) {
  Deno.test(`an attribute of type ${type} holds nothing else`, () => {
    const schema: Schema = { a: { type: type as AttrType, doc: "for tests" } };
    for (const a of fits) assertEquals(attributeFault(schema, { a }), undefined, JSON.stringify(a));
    for (const a of not) {
      const text = `attribute "a" is ${JSON.stringify(a)}, expected ${type} (for tests)`;
      assertEquals(attributeFault(schema, { a }), text);
    }
  });
}

Deno.test("an attribute that is missing, or that nobody knows, is named; an optional one may be left out", () => {
  const schema: Schema = { a: { type: "flag", doc: "asked" }, b: { type: "flag", optional: true, doc: "not asked" } };
  assertEquals(attributeFault(schema, { a: true }), undefined);
  assertEquals(attributeFault(schema, { b: true }), `attribute "a" is missing, expected flag (asked)`);
  assertEquals(attributeFault(schema, { a: true, c: 1 }), `attribute "c" is none of a, b`);
  assertEquals(attributeFault({}, { c: 1 }), `attribute "c" is none of its own: it has none`);
});

Deno.test("a node with a misspelt attribute cannot be made, nor one with an attribute of another type", () => {
  const make = (op: string, attrs: Record<string, Attr>) => () => trace((x) => x.apply(op, [x], attrs)[0], f64(2, 2));
  const dims = "a b, b c -> a c";
  make("contract", { dims, round: "bf16" })();
  assertThrows(
    make("contract", { dims, rond: true }),
    TypeError,
    `Cannot apply "contract": attribute "rond" is none of`,
  );
  assertThrows(make("contract", { dims, round: 1 }), TypeError, `attribute "round" is 1, expected text`);
  assertThrows(make("contract", { dims, round: "f32" }), TypeError, `attribute "round" is "f32", expected bf16 (`);
  assertThrows(
    () => trace((x) => x.apply("reduce", [], { dims: "a b -> a", kind: "min" })[0], f64(2, 2)),
    TypeError,
    `Cannot apply "reduce": attribute "kind" is "min", expected sum or max or max_abs (`,
  );
  assertThrows(make("add", { dims }), TypeError, `Cannot apply "add": attribute "dims" is none of bf16`);
});

Deno.test("what passes leave for others is written by passes that there are", () => {
  const ranks = {
    partition: passes()[0].run,
    graphOfRank: passes()[0].run,
    reduceSums: passes()[0].run,
    holdStates: passes()[0].run,
  };
  const all = { ...ranks, ringAttention: true, asyncAxis: "tp", keepGathered: "step" } as const;
  const names = new Set(passes({ ranks: all }).map((p) => p.name));
  const writers = new Set(
    [...ops.values()].flatMap((op) => Object.values(op.attrs ?? {})).flatMap((a) => a.writer ?? []),
  );
  assert(writers.size >= 5);
  for (const writer of writers) for (const name of writer.split(", ")) assert(names.has(name), `"${name}" is no pass`);
});

Deno.test("what depends on the rank is found in numbers and in lists of them", () => {
  const schema: Schema = {
    a: { type: "rank integer", optional: true, doc: "one" },
    b: { type: "rank integers", optional: true, doc: "some" },
  };
  assertEquals(dependsOnRank(schema, { a: 1, b: [1] }), false);
  assertEquals([dependsOnRank(schema, { a: later }), dependsOnRank(schema, { b: [1, later] })], [true, true]);
});
