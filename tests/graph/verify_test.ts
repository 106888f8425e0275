import { assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { f32, f64 } from "../../graph/builder.ts";
import type { Graph, Node, State, Value } from "../../graph/ir.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { rules, verify } from "../../graph/verify.ts";

const states: State[] = [{ name: "w", kind: "parameter", ...f64(3, 2) }, { name: "sum", kind: "sum", ...f64(3, 2) }];

/** read, contract, exp, contract (for a gradient), accumulate, assign. */
const good: Graph = traceGraph("g", states, (builder) => {
  const x = new Tensor(builder, builder.input("x", f64(4, 2))), w = new Tensor(builder, builder.read("w"));
  const y = x.contract("b i, o i -> b o", w).exp();
  const dw = y.contract("b o, b i -> o i", x);
  builder.accumulate("sum", dw.value);
  builder.assign("w", w.value);
  return { y };
});
const [read, product, exp, gradient, accumulate, assign] = good.nodes;

const withNodes = (...nodes: Node[]): Graph => ({ ...good, nodes });
const stranger: Value = { id: 999, ...f64(4, 3) };
const into: Node = { ...gradient, attrs: { ...gradient.attrs, into: ["sum"], begin: true } };

/** For each rule, graphs that break it (and, so far as can be, no other), and what is said. */
const faults: Record<string, [fault: string, says: string, graph: Graph][]> = {
  "a value is made once, before it is used": [
    ["a node stands before what it needs", "exp(", withNodes(read, exp, product, gradient, accumulate, assign)],
    [
      "an input of no node",
      "%999 in",
      withNodes(read, product, { ...exp, inputs: [stranger] }, gradient, accumulate, assign),
    ],
    ["a value made twice", "is made again by", withNodes(read, product, exp, gradient, gradient, accumulate, assign)],
    ["an output that nothing makes", `output "y"`, { ...good, outputs: [{ name: "y", value: stranger }] }],
  ],
  "ids are unique": [
    [
      "two values of one id",
      `%${exp.outputs[0].id}`,
      withNodes(read, product, exp, gradient, accumulate, assign, {
        ...exp,
        outputs: [{ ...exp.outputs[0] }],
      }),
    ],
  ],
  "output types follow from op, inputs and attributes": [
    ["a wrong shape", "expected f64[4,3]", {
      ...withNodes(read, product, { ...exp, outputs: [{ id: 50, ...f64(3, 4) }] }),
      outputs: [],
    }],
    ["a wrong dtype", "expected f64[4,3]", {
      ...withNodes(read, product, { ...exp, outputs: [{ id: 50, ...f32(4, 3) }] }),
      outputs: [],
    }],
    [
      "one output too many",
      "expected f64[4,3]",
      withNodes(read, product, { ...exp, outputs: [...exp.outputs, stranger] }, gradient, accumulate, assign),
    ],
  ],
  "dims are positive whole numbers": [
    [
      "a size of zero",
      "read()",
      withNodes({ ...read, attrs: { ...read.attrs, shape: [0, 2] }, outputs: [{ id: 50, ...f64(0, 2) }] }),
    ],
    [
      "half an element",
      "read()",
      withNodes({ ...read, attrs: { ...read.attrs, shape: [1.5, 2] }, outputs: [{ id: 50, ...f64(1.5, 2) }] }),
    ],
  ].map(([fault, says, graph]) => [fault, says, { ...graph as Graph, outputs: [] }] as [string, string, Graph]),
  "states are declared, and a value put into them has their type": [
    ["an undeclared state", "undeclared in", { ...good, states: states.slice(1) }],
    [
      "a value of another size",
      "accumulate(",
      withNodes(read, product, exp, gradient, { ...accumulate, inputs: [exp.outputs[0]] }, assign),
    ],
    ["a state of another dtype", "read()", { ...good, states: [{ ...states[0], dtype: "f32" }, states[1]] }],
    ["a product into a state of another size", "contract(", {
      ...withNodes(read, product, exp, into, assign),
      states: [states[0], { ...states[1], shape: [3, 3] }],
    }],
  ],
  "a value added into state is not read": [
    ["another node reads it", "contract(", withNodes(read, product, exp, into, accumulate, assign)],
    ["it is a result", "contract(", {
      ...withNodes(read, product, exp, into, assign),
      outputs: [...good.outputs, { name: "dw", value: into.outputs[0] }],
    }],
  ],
  "no state is read after it was assigned": [
    [
      "a read at the end",
      `"w" in`,
      withNodes(read, product, exp, gradient, accumulate, assign, { ...read, outputs: [{ id: 50, ...f64(3, 2) }] }),
    ],
  ],
};

Deno.test("a good graph is returned as it is", () => {
  assertStrictEquals(verify(good), good);
  const fused = withNodes(read, product, exp, into, assign);
  assertStrictEquals(verify(fused), fused);
});

Deno.test("every rule has a planted fault", () => {
  assertEquals(rules.map(([name]) => name), Object.keys(faults));
});

for (const [rule, list] of Object.entries(faults)) {
  for (const [fault, says, graph] of list) {
    Deno.test(`"${rule}" finds ${fault}`, () => {
      const error = assertThrows(() => verify(graph), Error, `Invalid graph "g": ${rule}: `);
      assertEquals(error.message.includes(says), true, error.message);
    });
  }
}
