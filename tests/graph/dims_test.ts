import { assertEquals, assertThrows } from "@std/assert";
import { bindDims, expandDims, inferShapes, parseDims, shapeOf } from "../../graph/dims.ts";

Deno.test("a signature is parsed into terms of dims of labels", () => {
  assertEquals(parseDims("b t (h k), h -> b 1 k, "), {
    inputs: [[["b"], ["t"], ["h", "k"]], [["h"]]],
    outputs: [[["b"], ["1"], ["k"]], []],
  });
  assertEquals(parseDims(" -> "), { inputs: [[]], outputs: [[]] });
});

Deno.test("a signature without one arrow, or with strange signs, is a syntax error", () => {
  assertThrows(() => parseDims("a b"), SyntaxError, `expected one "->", found 0`);
  assertThrows(() => parseDims("a -> b -> c"), SyntaxError, `expected one "->", found 2`);
  assertThrows(() => parseDims("a * -> a"), SyntaxError, `unexpected "*"`);
  assertThrows(() => parseDims("(a -> a"), SyntaxError, `unexpected "("`);
});

Deno.test("the ellipsis stands for the same leading dims in every term", () => {
  assertEquals(expandDims("... d, d -> ..., d", [3, 1]).inputs[0], [["...0"], ["...1"], ["d"]]);
  assertEquals(inferShapes("... d, d -> ... d, ...", [[2, 3, 4], [4]]), [[2, 3, 4], [2, 3]]);
  assertEquals(inferShapes("... d, d -> ... d, ...", [[4], [4]]), [[4], []]);
  assertThrows(() => expandDims("... d, ... -> d", [3, 1]), TypeError, `"..." stands for 2 dims and for 1`);
});

Deno.test("labels are bound to sizes, also inside brackets when the others are known", () => {
  assertEquals(Object.fromEntries(bindDims("b (h k) -> b h k", [[2, 12]], { h: 3 })), { h: 3, b: 2, k: 4 });
  assertEquals(inferShapes("b (h k) -> b h k", [[2, 12]], { h: 3 }), [[2, 3, 4]]);
  assertEquals(inferShapes("a 1 -> 1 a 1", [[5, 1]]), [[1, 5, 1]]);
});

Deno.test("sizes that do not fit are told with both numbers", () => {
  const shapes = (...s: number[][]) => s;
  assertThrows(() => bindDims("a b, b -> a", shapes([2, 3], [4])), TypeError, `"b" is 3 and 4`);
  assertThrows(() => bindDims("a b -> a", shapes([2])), TypeError, "operand 0 needs 2 dims, has 1");
  assertThrows(() => bindDims("a, b -> a", shapes([2])), TypeError, "expected 2 operands, got 1");
  assertThrows(() => bindDims("(a b) -> a b", shapes([6])), TypeError, `"(a b)" needs the size of b`);
  assertThrows(
    () => bindDims("(a b) -> a b", shapes([6]), { a: 4 }),
    TypeError,
    "dim 0 of operand 0 is 6, not a multiple of 4",
  );
  assertThrows(() => bindDims("1 a -> a", shapes([2, 3])), TypeError, `"1" is 1 and 2`);
});

Deno.test("a shape of an unbound label is an error", () => {
  assertThrows(() => shapeOf([["a"]], new Map()), TypeError, `the size of "a" is unknown`);
  assertEquals(shapeOf([["a", "b"], ["1"]], new Map([["a", 2], ["b", 3]])), [6, 1]);
});

Deno.test("a label that one term has twice is refused, as it would be a diagonal", () => {
  for (const [text, term] of [["a a, a b -> a b", "a a"], ["a b -> b b", "b b"], ["a (b a) -> a", "a (b a)"]]) {
    assertThrows(() => parseDims(text), SyntaxError, `stands twice in "${term}"; a diagonal has to be taken first`);
  }
  assertEquals(parseDims("1 a 1 -> a 1 1").inputs.length, 1);
});
