import { assertEquals, assertThrows } from "@std/assert";
import { Builder, Emitted, f32, f64, i32, opOf, withInputs } from "../../graph/builder.ts";
import { interpret } from "../../graph/interpret.ts";
import type { Origin, State } from "../../graph/ir.ts";
import { print } from "../../graph/print.ts";
import { verify } from "../../graph/verify.ts";
import { at } from "./origins.ts";

const states: State[] = [
  { name: "a", kind: "parameter", ...f64(2, 3) },
  { name: "b", kind: "parameter", ...f64(1, 3) },
];

Deno.test("types are inferred as nodes are made, so an ill-formed graph cannot be built", () => {
  const builder = new Builder("g");
  const x = builder.input("x", f32(2, 3)), y = builder.input("y", f32(3));
  assertThrows(() => builder.emit("add", [x, y]), TypeError, `Cannot apply "add"`);
  assertThrows(() => builder.emit("blur", [x]), TypeError, `Cannot find op "blur"`);
  assertEquals(builder.nodes, []);
  assertEquals(builder.emit("exp", [x]).map((v) => v.shape), [[2, 3]]);
  assertEquals(opOf("exp").name, "exp");
});

Deno.test("a node on other operands has the same results where these have the same types; of others nothing is taken for granted", () => {
  const builder = new Builder("g"), [x, y] = ["x", "y"].map((name) => builder.input(name, f32(2)));
  const z = builder.input("z", f32(3));
  builder.emit("exp", [x]);
  const [exp] = builder.nodes, same = withInputs(exp, [y]), other = withInputs(exp, [z]);
  assertEquals([same.inputs, same.outputs, same.op], [[y], exp.outputs, "exp"]);
  assertEquals([same, other].map((n) => n instanceof Emitted), [true, false]);
  assertThrows(() => verify({ ...builder.finish(), nodes: [other] }), Error, "output types follow");
});

Deno.test("a graph may have any number of nodes", () => {
  const builder = new Builder("g"), x = builder.input("x", f32(2));
  builder.emit("exp", [x]);
  const graph = builder.finish(), nodes = Array(200_000).fill(graph.nodes[0]);
  assertEquals(Builder.extend({ ...graph, nodes }).nodes.length, 200_000);
});

Deno.test("inputs have unique names, and nodes come from where they are made", () => {
  const builder = new Builder("g"), x = builder.input("x", f32(2));
  assertThrows(() => builder.input("x", f32(2)), TypeError, `Cannot add input "x": it exists already`);
  builder.origin = at("layers.0");
  builder.emit("exp", [x]);
  builder.emit("exp", [x], {}, at("other'"));
  assertEquals(builder.nodes.map(({ scope, phase, block }): Origin => ({ scope, phase, block })), [
    at("layers.0"),
    at("other'"),
  ]);
});

Deno.test("only declared states can be touched, and each has one type", () => {
  const builder = new Builder("g", states), x = builder.input("x", f64(2, 3));
  for (const touch of [() => builder.read("c"), () => builder.assign("c", x), () => builder.accumulate("c", x)]) {
    assertThrows(touch, TypeError, `Cannot touch state "c" in graph "g": it is not declared`);
  }
  builder.declare(states[0]);
  assertThrows(() => builder.declare({ ...states[0], shape: [3] }), TypeError, `Cannot declare state "a" twice`);
});

Deno.test("states that lie one after another are read as one value", () => {
  const builder = new Builder("g", states), both = builder.read("a", "b");
  assertEquals(both.shape, [3, 3]);
  builder.output("both", both);
  const memory = new Map([["a", { shape: [2, 3], data: Float64Array.of(1, 2, 3, 4, 5, 6) }], ["b", {
    shape: [1, 3],
    data: Float64Array.of(7, 8, 9),
  }]]);
  assertEquals([...interpret(verify(builder.finish()), { memory }).both.data], [1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

Deno.test("a builder goes on where a graph ends and leaves it as it was", () => {
  const builder = new Builder("g", states), x = builder.input("ids", i32(2));
  builder.output("y", builder.emit("embedding", [x, builder.read("a")])[0]);
  const graph = builder.finish(), text = print(graph), more = Builder.extend(graph);
  more.output("z", more.emit("exp", [graph.outputs[0].value])[0]);
  assertEquals(print(graph), text);
  const longer = verify(more.finish());
  assertEquals(longer.nodes.map((n) => n.op), ["read", "embedding", "exp"]);
  assertEquals(longer.outputs.map((o) => o.name), ["y", "z"]);
});
