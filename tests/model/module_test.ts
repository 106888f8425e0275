import { assertEquals, assertThrows } from "@std/assert";
import { f32, f64 } from "../../graph/builder.ts";
import { interpret } from "../../graph/interpret.ts";
import type { Graph } from "../../graph/ir.ts";
import { print } from "../../graph/print.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { trace, traceGraph } from "../../graph/trace.ts";
import { Linear, RMSNorm } from "../../model/layers.ts";
import {
  bind,
  Module,
  namedParameters,
  numParameters,
  type Parameter,
  parameter,
  parameterStates,
} from "../../model/module.ts";

class GatedMixer extends Module {
  readonly gate: Linear;
  readonly value: Linear;
  constructor(dim: number) {
    super();
    this.gate = new Linear(dim, dim);
    this.value = new Linear(dim, dim);
  }
  forward(x_BTD: Tensor): Tensor {
    return this.gate.forward(x_BTD).sigmoid().mul(this.value.forward(x_BTD));
  }
}

const traceMixer = (mixer: GatedMixer): Graph => trace((x) => bind(mixer, x, () => mixer.forward(x)), f64(1, 2, 3));
const scopes = (graph: Graph): string[] => graph.nodes.map((n) => `${n.op} ${n.scope}`.trim());

Deno.test("a module written as ordinary TypeScript is traced with names and scopes by property path", () => {
  const graph = traceMixer(new GatedMixer(3));
  assertEquals(graph.states.map((s) => `${s.name} ${s.dtype}[${s.shape}]`), [
    "gate.weight f64[3,3]",
    "value.weight f64[3,3]",
  ]);
  assertEquals(scopes(graph), ["read gate", "contract gate", "sigmoid", "read value", "contract value", "mul"]);
});

Deno.test("a module computes with the values of its parameters", () => {
  const identity = [1, 0, 0, 0, 1, 0, 0, 0, 1], zero = new Float64Array(9);
  const memory = new Map([
    ["gate.weight", { shape: [3, 3], data: zero }],
    ["value.weight", { shape: [3, 3], data: Float64Array.from(identity) }],
  ]);
  const { y0 } = interpret(traceMixer(new GatedMixer(3)), { inputs: { x0: [1, 2, 3, 4, 5, 6] }, memory });
  assertEquals([...y0.data], [0.5, 1, 1.5, 2, 2.5, 3]);
});

Deno.test("two traces of one model give the same graph", () => {
  const mixer = new GatedMixer(3);
  assertEquals(print(traceMixer(mixer)), print(traceMixer(mixer)));
});

class Leaf extends Module {
  readonly innerWeight: Parameter = parameter([2], { kind: "constant", value: 0 });
  forward(x: Tensor): Tensor {
    return x.mul(this.innerWeight());
  }
}

class Tree extends Module {
  readonly attentionNorm: RMSNorm = new RMSNorm(2);
  readonly leafLists: readonly (readonly Leaf[])[] = [[new Leaf()], [new Leaf(), new Leaf()]];
  readonly w1: Parameter = parameter([2, 3], { kind: "constant", value: 0 });
  readonly size: number = 2;
  forward(x: Tensor): Tensor {
    let y = this.attentionNorm.forward(x);
    for (const leaf of this.leafLists.flat()) y = leaf.forward(y);
    return y;
  }
}

Deno.test("properties are spelled in snake case and arrays by index, in the order of the properties", () => {
  assertEquals([...namedParameters(new Tree()).keys()], [
    "attention_norm.weight",
    "leaf_lists.0.0.inner_weight",
    "leaf_lists.1.0.inner_weight",
    "leaf_lists.1.1.inner_weight",
    "w1",
  ]);
});

Deno.test("nodes made by a module in nested arrays carry its path", () => {
  const tree = new Tree();
  const graph = trace((x) => bind(tree, x, () => tree.forward(x)), f32(2));
  assertEquals(graph.nodes.filter((n) => n.op === "mul").map((n) => n.scope), [
    "leaf_lists.0.0",
    "leaf_lists.1.0",
    "leaf_lists.1.1",
  ]);
});

Deno.test("an element of a list of modules is a block, with all that it holds; one that holds lists alone is none", () => {
  class Block extends Module {
    readonly norm: RMSNorm = new RMSNorm(2);
    readonly experts: readonly Leaf[] = [new Leaf(), new Leaf()];
    forward(x: Tensor): Tensor {
      return this.experts.reduce((y, expert) => expert.forward(y), this.norm.forward(x));
    }
  }
  class Stage extends Module {
    readonly layers: readonly Block[] = [new Block(), new Block()];
    forward(x: Tensor): Tensor {
      return this.layers.reduce((y, layer) => layer.forward(y), x.exp());
    }
  }
  class Root extends Module {
    readonly first: Leaf = new Leaf();
    readonly stages: readonly Stage[] = [new Stage()];
    readonly scales: readonly Parameter[] = [parameter([2], { kind: "constant", value: 1 })];
    forward(x: Tensor): Tensor {
      return this.stages.reduce((y, stage) => stage.forward(y), this.first.forward(x).mul(this.scales[0]()));
    }
  }
  const root = new Root(), graph = trace((x) => bind(root, x, () => root.forward(x)), f32(2));
  const blocks = (of: Iterable<{ readonly scope?: string; readonly block?: string }>) =>
    Object.fromEntries([...of].map(({ scope, block }) => [scope, block]));
  const inside = (layer: string) => [`${layer}.norm`, `${layer}.experts.0`, `${layer}.experts.1`];
  const layers = ["stages.0.layers.0", "stages.0.layers.1"];
  const expected = Object.fromEntries(layers.flatMap((layer) => inside(layer).map((scope) => [scope, layer])));
  const outside = { first: undefined, "": undefined };
  assertEquals(blocks(graph.nodes), { ...outside, "stages.0": undefined, ...expected });
  assertEquals(blocks(graph.states), { ...outside, ...expected });
});

Deno.test("a graph knows what each module gives", () => {
  const tree = new Tree(), graph = trace((x) => bind(tree, x, () => tree.forward(x)), f32(2));
  const norm = graph.nodes.find((n) => n.op === "rmsnorm")!, products = graph.nodes.filter((n) => n.op === "mul");
  assertEquals(graph.activations, [
    { name: "attention_norm", value: norm.outputs[0] },
    ...products.map((n) => ({ name: n.scope, value: n.outputs[0] })),
  ]);
});

Deno.test("the scope of the caller is restored after a module, also when it throws", () => {
  class Broken extends Module {
    forward(): never {
      throw new RangeError("broken");
    }
  }
  class Root extends Module {
    readonly leaf: Leaf = new Leaf();
    readonly broken: Broken = new Broken();
    forward(x: Tensor): Tensor {
      const y = this.leaf.forward(x).exp();
      assertThrows(() => this.broken.forward(), RangeError, "broken");
      return y.exp();
    }
  }
  const root = new Root();
  const graph = trace((x) => bind(root, x, () => root.forward(x)), f32(2));
  assertEquals(scopes(graph), ["read leaf", "mul leaf", "exp", "exp"]);
});

Deno.test("a tied parameter has its first path as name and counts once", () => {
  class Tied extends Module {
    readonly first: Linear = new Linear(4, 4);
    readonly second: Linear = this.first;
    readonly third: Linear = new Linear(4, 4);
    constructor() {
      super();
      (this.third as { weight: Parameter }).weight = this.first.weight;
    }
    forward(x: Tensor): Tensor {
      return this.third.forward(this.second.forward(x));
    }
  }
  const tied = new Tied();
  assertEquals([...namedParameters(tied).keys()], ["first.weight"]);
  assertEquals(numParameters(tied), 16);
  const graph = trace((x) => bind(tied, x, () => tied.forward(x)), f32(4));
  const reads = graph.nodes.filter((n) => n.op === "read").map((n) => [n.attrs.states, n.scope]);
  assertEquals(reads, [[["first.weight"], "first"], [["first.weight"], "third"]]);
});

Deno.test("numParameters multiplies and adds shapes", () => {
  assertEquals(numParameters(new Tree()), 2 + 3 * 2 + 6);
});

Deno.test("parameters are states of the element type that the trace asks for", () => {
  assertEquals(parameterStates(new Leaf(), "f32"), [
    { name: "inner_weight", kind: "parameter", dtype: "f32", shape: [2], scope: "", block: undefined },
  ]);
});

Deno.test("a module used outside of a trace says so", () => {
  assertThrows(() => new Leaf().innerWeight(), Error, "Cannot read a parameter of shape [2]: no graph is being traced");
});

Deno.test("after a trace that failed no model is bound", () => {
  const leaf = new Leaf();
  traceGraph("failing", [], (builder) => {
    assertThrows(() =>
      bind(leaf, { builder, dtype: "f32" }, () => {
        throw new RangeError("broken");
      }), RangeError);
  });
  assertThrows(() => leaf.innerWeight(), Error, "no graph is being traced");
});

Deno.test("a parameter that no property leads to is an error that says where to put it", () => {
  class Hidden extends Module {
    readonly #leaf = new Leaf();
    forward(x: Tensor): Tensor {
      return this.#leaf.forward(x);
    }
  }
  const hidden = new Hidden();
  const run = () => trace((x) => bind(hidden, x, () => hidden.forward(x)), f32(2));
  assertThrows(run, Error, "Hidden does not hold it; expected it in a property of a module or in an array");
});

Deno.test("two parameters of one name are an error", () => {
  class Twice extends Module {
    readonly outNorm: Parameter = parameter([1], { kind: "constant", value: 0 });
    readonly out_norm: Parameter = parameter([1], { kind: "constant", value: 0 });
  }
  assertThrows(() => namedParameters(new Twice()), TypeError, `two of them are called "out_norm"`);
});

Deno.test("a forward that is a property is refused, since it would have no scope", () => {
  class Arrow extends Module {
    readonly forward = (x: Tensor): Tensor => x.exp();
  }
  assertThrows(() => namedParameters(new Arrow()), TypeError, `Cannot use Arrow: its "forward" is a property`);
});

Deno.test("a parameter's shape must be whole positive numbers", () => {
  assertThrows(() => new Linear(4, 2.5), RangeError, "shape [2.5,4]");
});
