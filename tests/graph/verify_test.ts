import { assertEquals, assertStrictEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { f32, f64, i32 } from "../../graph/builder.ts";
import { gradientOf, type Graph, type Level, momentsOf, type Node, type State, type Value } from "../../graph/ir.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { rules, verify } from "../../graph/verify.ts";

const w: State = { name: "w", kind: "parameter", block: "layers.0", ...f64(3, 2) };
const states: State[] = [w, { name: "sum", kind: "sum", ...f64(3, 2) }];

/** read, contract, exp, contract (for a gradient), accumulate, assign. */
const good: Graph = traceGraph("g", states, (builder) => {
  const x = new Tensor(builder, builder.input("x", f64(4, 2))), w = new Tensor(builder, builder.read("w"));
  const y = x.contract("b i, o i -> b o", w).exp();
  builder.origin = { scope: "loss", phase: "backward" };
  const dw = y.contract("b o, b i -> o i", x);
  builder.accumulate("sum", dw.value);
  builder.assign("w", w.value);
  builder.activations.push({ name: "layers.0", value: y.value });
  return { y };
});
const [read, product, exp, gradient, accumulate, assign] = good.nodes;

const withNodes = (...nodes: Node[]): Graph => ({ ...good, nodes });
/** Without what the graph gives, where that is not what is looked at. */
const alone = (graph: Graph): Graph => ({ ...graph, outputs: [], activations: [] });
/** Nodes with one of them in another form. */
const instead = (node: Node, changed: Partial<Node>): Graph =>
  alone(withNodes(...good.nodes.map((n) => n === node ? { ...n, ...changed } : n)));
const withStates = (...states: State[]): Graph => ({ ...good, states });
const stranger: Value = { id: 999, ...f64(4, 3) };
const into: Node = { ...gradient, attrs: { ...gradient.attrs, into: ["sum"], begin: true } };

/** A graph with one node of ranks, of a level. */
const ofRanks = (level: Level, op: string, attrs: Node["attrs"]): Graph =>
  traceGraph("g", [], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(4, 2)));
    return { y: x.apply(op, [], attrs)[0] };
  }, level);
const axes = { axes: ["tp"], size: 2 }, sum = { ...axes, by: "sum" };

/** A slice of a table that begins where the rank says. */
const lookup = (level: Level): Graph =>
  traceGraph("g", [], (builder) => {
    const [ids, table] = [i32(2), f64(3, 2)].map((type, i) => new Tensor(builder, builder.input(`x${i}`, type)));
    const start = { plus: 0, terms: [{ axes: ["tp"], step: 3 }] };
    return { y: ids.apply("embedding", [table], { start, whole: 6 })[0] };
  }, level);

/** A node whose two outputs are one value. */
const twins: Graph = (() => {
  const { nodes: [shift], ...graph } = ofRanks("ranks", "ring_shift", axes), [v] = shift.outputs;
  return { ...graph, nodes: [{ ...shift, inputs: [...shift.inputs, ...shift.inputs], outputs: [v, v] }] };
})();

/** For each rule, graphs that break it (and, so far as can be, no other), and what is said. */
const faults: Record<string, [fault: string, says: string, graph: Graph][]> = {
  "a value is made once, under an id of its own, before it is used": [
    ["a node before what it needs", "exp(", withNodes(read, exp, product, gradient, accumulate, assign)],
    ["an operand of no node", "%999 is not there yet in", instead(exp, { inputs: [stranger] })],
    ["a value made twice", "made again in %", withNodes(read, product, exp, gradient, gradient, accumulate, assign)],
    ["two outputs that are one", "is made again in %", twins],
    ["an output that nothing makes", `output "y"`, { ...good, outputs: [{ name: "y", value: stranger }] }],
    ["an input of another's id", "is two inputs", { ...good, inputs: [...good.inputs, ...good.inputs] }],
    [
      "two values of one id",
      `%${exp.outputs[0].id} is another value in`,
      withNodes(...good.nodes, { ...exp, outputs: [{ ...exp.outputs[0] }] }),
    ],
  ],
  "what modules give is made, too": [
    ["a result that is gone", `"layers.0"`, { ...good, activations: [{ name: "layers.0", value: stranger }] }],
  ],
  "ops are those of the table": [["an op that there is not", `"no_op" is none in %`, instead(exp, { op: "no_op" })]],
  "attributes are those of the op's schema": [
    ["one that the op has not", `"dim" is none of`, instead(product, { attrs: { ...product.attrs, dim: 1 } })],
    [
      "one of another type",
      `"begin" is 1, expected flag`,
      instead(accumulate, { attrs: { states: ["sum"], begin: 1 } }),
    ],
    ["one that is missing", `"dims" is missing, expected text`, instead(product, { attrs: {} })],
    ["a list of other things", `expected texts`, instead(read, { attrs: { ...read.attrs, states: [1] } })],
  ],
  "output types follow from op, inputs and attributes": [
    ["a wrong shape", "expected f64[4,3] in %50", instead(exp, { outputs: [{ id: 50, ...f64(3, 4) }] })],
    ["a wrong dtype", "expected f64[4,3] in %50", instead(exp, { outputs: [{ id: 50, ...f32(4, 3) }] })],
    ["operands that do not fit", "in %", instead(product, { inputs: [exp.outputs[0], read.outputs[0]] })],
    ["one output too many", "expected f64[4,3] in %", instead(exp, { outputs: [...exp.outputs, stranger] })],
    [
      "an attribute that says otherwise",
      "expected f64[3,4] in %",
      instead(product, { attrs: { dims: "b i, o i -> o b" } }),
    ],
  ],
  "dims are positive whole numbers": [
    [
      "a size of zero",
      "read()",
      instead(read, { attrs: { ...read.attrs, shape: [0, 2] }, outputs: [{ id: 50, ...f64(0, 2) }] }),
    ],
    [
      "less than nothing",
      "read()",
      instead(read, { attrs: { ...read.attrs, shape: [-1, 2] }, outputs: [{ id: 50, ...f64(-1, 2) }] }),
    ],
  ].map(([fault, says, graph]) => [fault, says, graph] as [string, string, Graph]),
  "forward reads nothing that backward makes": [
    ["forward behind backward", `is made in backward in %`, instead(product, { phase: "backward" })],
    ["forward behind what is made again", `is made in backward in %`, instead(read, { phase: "remade" })],
  ],
  "a gradient and a moment say which parameter they belong to, an activation which slot": [
    [
      "a gradient of nobody",
      `"gradient/w" belongs to none`,
      withStates(...states, { ...gradientOf(w), of: undefined }),
    ],
    ["a sum of somebody", `"sum" is a sum, and belongs to "w"`, withStates(w, { ...states[1], of: "w" })],
    ["a moment of a sum", `belongs to "sum", which is a sum`, withStates(...states, { ...momentsOf(w)[0], of: "sum" })],
    [
      "a gradient in another block",
      `in another block than "w"`,
      withStates(...states, { ...gradientOf(w), block: "b.1" }),
    ],
    [
      "a moment of another shape",
      `has another shape than "w"`,
      withStates(...states, { ...momentsOf(w)[1], shape: [6] }),
    ],
  ],
  "states are declared, and a value put into them has their type": [
    ["an undeclared state", `"w" is not declared in %`, { ...good, states: states.slice(1) }],
    ["a value of another size", "accumulate(", instead(accumulate, { inputs: [exp.outputs[0]] })],
    ["a state of another dtype", "read()", withStates({ ...w, dtype: "f32" }, states[1])],
    ["a product into a state of another size", "contract(", {
      ...withNodes(read, product, exp, into, assign),
      states: [w, { ...states[1], shape: [3, 3] }],
    }],
  ],
  "a value added into state is not read": [
    ["another node reads it", "accumulate(", withNodes(read, product, exp, into, accumulate, assign)],
    ["it is a result", `output "dw"`, {
      ...withNodes(read, product, exp, into, assign),
      outputs: [...good.outputs, { name: "dw", value: into.outputs[0] }],
    }],
  ],
  "no state is read after it was assigned": [
    [
      "a read at the end",
      `"w" has a new value in %50`,
      withNodes(...good.nodes, { ...read, outputs: [{ id: 50, ...f64(3, 2) }] }),
    ],
  ],
  "a graph of whole values knows of no ranks": [
    ["an exchange", "all_reduce(", ofRanks("global", "all_reduce", sum)],
    ["a slice of a rank", "slice_by_rank(", ofRanks("global", "slice_by_rank", { ...axes, dim: 0 })],
    ["a number of a rank's", "it depends on the rank in %", lookup("global")],
  ],
  "in the graph of all ranks an exchange is among those of some axes, and the group is still open": [
    ["an exchange without axes", "it has no axes in", ofRanks("ranks", "all_reduce", { size: 2, by: "sum" })],
    ["a group of one rank's", "it has a group already", ofRanks("ranks", "all_reduce", { ...sum, group: [0, 1] })],
  ],
  "in the graph of one rank an exchange has its group, and nothing else depends on the rank": [
    ["an exchange without a group", "it has no group in %", ofRanks("rank", "all_reduce", sum)],
    ["a group of another size", "its group is not of 2 ranks", ofRanks("placed", "all_reduce", { ...sum, group: [0] })],
    ["a slice that is still open", "it depends on the rank", ofRanks("rank", "slice_by_rank", { ...axes, dim: 0 })],
    ["a number that is still open", "it depends on the rank in %", lookup("placed")],
  ],
};

Deno.test("a good graph is returned as it is", () => {
  assertStrictEquals(verify(good), good);
  const fused = withNodes(read, product, exp, into, assign);
  assertStrictEquals(verify(fused), fused);
  const owned = withStates(...states, gradientOf(w), ...momentsOf(w));
  assertStrictEquals(verify(owned), owned);
});

Deno.test("every rule has a planted fault", () => {
  assertEquals(rules.map((r) => r.name), Object.keys(faults));
});

for (const [rule, list] of Object.entries(faults)) {
  for (const [fault, says, graph] of list) {
    Deno.test(`"${rule}" finds ${fault}`, () => {
      const error = assertThrows(() => verify(graph), Error, `Invalid graph "g": ${rule}: `);
      assertStringIncludes(error.message, says);
    });
  }
}

Deno.test("what was found in order is asked again where its level or the states are others", () => {
  const graph = ofRanks("ranks", "all_reduce", sum);
  verify(graph);
  assertThrows(() => verify({ ...graph, level: "rank" }), Error, "it has no group");
  assertThrows(() => verify({ ...good, states: [{ ...w, dtype: "f32" }, states[1]] }), Error, "states are declared");
});
