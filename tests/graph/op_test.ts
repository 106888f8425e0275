import { assertEquals, assertThrows } from "@std/assert";
import { f32, f64, i32 } from "../../graph/builder.ts";
import type { Node } from "../../graph/ir.ts";
import { defineOp, flopsOf, inferTypes } from "../../graph/op.ts";

const rows = defineOp({ name: "rows", dims: "... d, d -> ..." });

Deno.test("output types follow from dims, and the dtype from the first real operand", () => {
  assertEquals(inferTypes(rows, [f32(2, 3, 4), f32(4)], {}), [f32(2, 3)]);
  assertEquals(inferTypes(rows, [i32(2, 4), f64(4)], {}), [f64(2)]);
  assertEquals(inferTypes(rows, [i32(2, 4), i32(4)], {}), [i32(2)]);
});

Deno.test("dims may depend on attributes and ranks, and take sizes from attributes", () => {
  const op = defineOp({ name: "o", dims: (attrs, ranks) => ranks[0] > 1 ? "a b -> a" : `a -> ${attrs.to}` });
  assertEquals(inferTypes(op, [f32(2, 3)], {}), [f32(2)]);
  assertEquals(inferTypes(op, [f32(2)], { to: "a c", sizes: { c: 5 } }), [f32(2, 5)]);
});

Deno.test("an error names the op, and keeps its cause", () => {
  const error = assertThrows(() => inferTypes(rows, [f32(2, 3), f32(4)], {}), TypeError, `Cannot apply "rows": `);
  assertEquals((error.cause as Error).message.includes(`"d" is 3 and 4`), true);
  assertThrows(
    () => inferTypes(rows, [f32(2, 3), f64(3)], {}),
    TypeError,
    "operands are f32 and f64; cast one of them",
  );
});

Deno.test("integer operands are the ones that the op names", () => {
  const op = defineOp({ name: "pick", dims: "n, d -> n d", integers: [0] });
  assertEquals(inferTypes(op, [i32(2), f32(3)], {}), [f32(2, 3)]);
  assertThrows(() => inferTypes(op, [f32(2), f32(3)], {}), TypeError, "operand 0 is f32, expected i32");
  assertThrows(() => inferTypes(op, [i32(2), i32(3)], {}), TypeError, "operand 1 is i32, expected f32 or f64");
});

Deno.test("the default of FLOPs is one for each element of the largest operand", () => {
  const value = (id: number, ...shape: number[]) => ({ id, ...f32(...shape) });
  const node: Node = {
    op: "rows",
    inputs: [value(0, 2, 4), value(1, 4)],
    outputs: [value(2, 2)],
    attrs: {},
    phase: "forward",
    scope: "",
  };
  assertEquals(flopsOf(rows, node), 8);
  assertEquals(flopsOf({ ...rows, flops: () => 3 }, node), 3);
  assertEquals(flopsOf(rows, { ...node, inputs: [] }), 2);
});
