import { assert, assertEquals } from "@std/assert";
import { f64 } from "../../../graph/builder.ts";
import { hasEffect } from "../../../graph/edit.ts";
import { type Graph, inBackward, type Node, producers } from "../../../graph/ir.ts";
import { autodiff } from "../../../graph/passes/autodiff.ts";
import { recomputedFlops, remake, remat, type RematPolicy } from "../../../graph/passes/remat.ts";
import { fullPrecision } from "../../../graph/passes/precision.ts";
import { simplify } from "../../../graph/passes/simplify.ts";
import { print, scopeText } from "../../../graph/print.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { grad, trace, traceGraph } from "../../../graph/trace.ts";
import { verify } from "../../../graph/verify.ts";
import { llama } from "../../../model/llama.ts";
import { traceMicrobatch } from "../../../train/step.ts";
import { golden } from "../../golden.ts";
import { assertSameMeaning, forSeeds, Random, randomGraph } from "../random_graphs.ts";
import { countOps } from "./graphs.ts";
import { at, isRemade } from "../origins.ts";
import { fuse, precision, tile } from "./on_cpu.ts";

const policies: Record<string, RematPolicy> = {
  none: { mode: "none" },
  full: { mode: "full" },
  second: { mode: "selective", option: 2 },
  op: { mode: "selective", option: "op" },
};

function withGradients(seed: number): Graph {
  const forward = randomGraph(seed);
  const states = forward.states.filter((s) => s.kind === "parameter").map((s) => s.name);
  return simplify(autodiff(forward, { of: "loss", states, inputs: ["x0"] }));
}

/** The microbatch of a Llama of so many layers, as it comes to the pass. */
function llamaStep(numLayers = 2, seqLen = 4): Graph {
  const sizes = { dim: 32, numLayers, numHeads: 4, numKvHeads: 2, ffnHiddenDim: 48, vocabSize: 61 };
  const shape = { batch: 2, seqLen, dtype: "f64", globalTokens: 2 * seqLen } as const;
  return tile(simplify(traceMicrobatch(llama("debug", sizes), shape)));
}

/** The microbatch of one block, before any pass, in which casts can be put. */
function blockInF32(): Graph {
  const sizes = { dim: 16, numLayers: 1, numHeads: 2, numKvHeads: 1, ffnHiddenDim: 24, vocabSize: 19 };
  return traceMicrobatch(llama("debug", sizes), { batch: 2, seqLen: 4, dtype: "f32", globalTokens: 8 });
}

/** Scopes of what backward makes again, each once. */
const copies = (
  graph: Graph,
): string[] => [...new Set(graph.nodes.filter(isRemade).map((n) => `${n.op} ${scopeText(n)}`))];

/** `op scope` of what forward makes and backward reads, without views and what is there anyway. */
function kept(graph: Graph): string[] {
  const made = producers(graph), list = graph.nodes.filter(inBackward).flatMap((n) => n.inputs);
  const sources = [...new Set(list)].map((v) => made.get(v)).filter((n): n is Node =>
    n !== undefined && !inBackward(n) && n.op !== "read" && n.op !== "constant"
  );
  return [...new Set(sources)].map((n) => `${n.op} ${n.scope}`);
}

for (const [name, policy] of Object.entries(policies)) {
  Deno.test(`mode ${name} keeps the meaning of random graphs to the last bit`, () => {
    let changed = 0;
    forSeeds(120, (seed) => {
      const before = verify(withGradients(seed)), text = print(before), after = verify(remat(before, policy));
      assertEquals(print(before), text, "the graph it was given has changed");
      if (after !== before) changed++;
      assertSameMeaning(before, after, seed, 0);
    });
    assert(changed > 20, `only ${changed} graphs changed`);
  });
}

Deno.test("a step in bf16 keeps every bit too, and its casts are made again with what is cast", () => {
  const half = precision(blockInF32(), { ...fullPrecision, param: "bf16" });
  const step = tile(simplify(half));
  for (const policy of Object.values(policies)) {
    const after = verify(remat(step, policy));
    assert(copies(after).includes("cast layers.0.feed_forward.w2'"), copies(after).join("; "));
    assertSameMeaning(step, after, 1, 0);
  }
});

Deno.test("whatever is chosen to be made again, the meaning stays to the last bit, also when fused", () => {
  forSeeds(150, (seed) => {
    const before = withGradients(seed), random = new Random(seed);
    const turn = before.nodes.findIndex(inBackward);
    const chosen = before.nodes.slice(0, Math.max(0, turn)).filter((n) =>
      !hasEffect(n) && n.op !== "read" && random.oneIn(2)
    );
    const after = verify(remake(before, new Set(chosen)));
    assertSameMeaning(before, after, seed, 0);
    assertSameMeaning(before, verify(fuse(after)), seed, 1e-10);
  });
});

Deno.test("a graph without a gradient stays as it is", () => {
  const graph = trace((x) => x.exp().mul(2).tanh(), f64(3));
  assertEquals(remat(graph, { mode: "full" }), graph);
});

Deno.test("none: norms and SwiGLU are made again from what is kept anyway", () => {
  const after = remat(llamaStep(1), policies.none);
  assertEquals(copies(after), [
    "rmsnorm norm'",
    ...["sigmoid", "mul"].map((op) => `${op} layers.0.feed_forward'`),
    "rmsnorm layers.0.ffn_norm'",
    "rmsnorm layers.0.attention_norm'",
  ]);
  const products = ["wq", "wk", "wv"].map((w) => `contract layers.0.attention.${w}`);
  const ffn = ["w1", "w3"].map((w) => `contract layers.0.feed_forward.${w}`);
  assert([...products, ...ffn].every((p) => !copies(after).includes(`${p}'`)));
});

Deno.test("none: SwiGLU made again is part of the map of its gradient, with one exponential", () => {
  const maps = fuse(remat(llamaStep(1), policies.none)).nodes.filter((n) => n.op === "map");
  const steps = maps.map((n) => (n.attrs.program as unknown as { steps: string[][] }).steps.map(([op]) => op));
  assertEquals(steps.map((ops) => ops.filter((op) => op === "sigmoid").length), [1, 1]);
  assertEquals(maps.map((n) => [n.inputs.length, n.outputs.length]), [[2, 1], [3, 3]]);
});

Deno.test("full: a block keeps what enters it", () => {
  const after = remat(llamaStep(3), policies.full);
  const inside = kept(after).filter((name) => /layers\.\d+\./.test(name));
  assertEquals(inside, []);
  assertEquals(kept(after).filter((name) => name.startsWith("add ")), ["add layers.2", "add layers.1", "add layers.0"]);
  // What backward does not need of a block, such as its last product, is not made again.
  assert(!copies(after).some((name) => name.includes("w2")));
});

Deno.test("selective: every second block is made again, counted from one; 0 and 1 are all of them", () => {
  const blocks = (option: number) =>
    new Set(
      copies(remat(llamaStep(5), { mode: "selective", option })).filter((c) => c.startsWith("contract")).map((c) =>
        at(c.split(" ")[1]).block
      ),
    );
  assertEquals([...blocks(2)], ["layers.3", "layers.1"]);
  assertEquals([...blocks(3)], ["layers.2"]);
  assertEquals([blocks(0).size, blocks(1).size], [5, 5]);
});

Deno.test("op: attention and every other product are kept, where products that run as one are one", () => {
  const after = remat(llamaStep(1), policies.op);
  assertEquals(copies(after).filter((c) => c.startsWith("contract")), ["contract layers.0.attention.wo'"]);
  assertEquals(countOps(after).attention, 1);
  const half = precision(blockInF32(), { ...fullPrecision, param: "bf16" });
  const products = copies(remat(simplify(half), policies.op)).filter((c) => c.startsWith("contract"));
  assertEquals(products, ["contract layers.0.attention.wo'"], "in bf16 too");
});

Deno.test("copies have a scope in backward, and stand right before the first node that needs them", () => {
  const { nodes } = remat(llamaStep(2), policies.full);
  assert(nodes.filter(isRemade).every((n) => n.attrs.copy === undefined && inBackward(n)));
  const [first, second] = ["layers.1", "layers.0"].map((b) => nodes.findIndex((n) => isRemade(n) && n.block === b));
  assert(
    second > nodes.findIndex((n) => n.op === "attention_backward"),
    "layers.0 is made again after layers.1 is done",
  );
  assert(first > nodes.findIndex((n) => n.op === "cross_entropy_backward"));
});

Deno.test("simplify does not join a copy with what it copies, and fuse does not mix the two", () => {
  const after = remat(llamaStep(2), policies.full), fused = fuse(after);
  assertEquals(countOps(simplify(after)).contract, countOps(after).contract);
  const made = producers(fused);
  for (const node of fused.nodes.filter((n) => !inBackward(n))) {
    assert(
      node.inputs.every((v) => !made.has(v) || !inBackward(made.get(v)!)),
      `${node.op} ${node.scope} reads a copy`,
    );
  }
  // 4 products of each block forward, 3 made again, 4 and 4 of its gradients; 1 and 2 of the head.
  assertEquals(countOps(fused).contract, 2 * (4 + 3 + 8) + 3);
  assertEquals(countOps(fused).add_rmsnorm, 4 + 2);
});

Deno.test("what forward still needs when backward has begun is not made again", () => {
  const graph = llamaStep(1, 600), after = remat(graph, policies.none);
  assert(countOps(graph).cross_entropy > 1, "the head is in chunks");
  assert(!copies(after).some((c) => c.endsWith(" norm'")), "all chunks read the last norm");
});

Deno.test("of a value and what it is made from, the smaller is kept", () => {
  // exp and tanh of a product are needed, and the product of both; the first product is kept in their place.
  const graph = trace(grad((x, w) => x.matmul(w).exp().mul(x.matmul(w).tanh()).matmul(w).sum()), f64(4, 4), f64(4, 4));
  const before = simplify(graph), after = remat(before);
  assertSameMeaning(before, after, 1, 0);
  assertEquals(kept(before), ["mul ", "tanh ", "exp "]);
  assertEquals(kept(after), ["contract "]);
  // A sum over rows is not worth reading all of them again.
  const sums = simplify(trace(grad((x) => x.exp().sum(1).square().sum()), f64(4, 64)));
  assert(!copies(remat(sums)).some((c) => c.startsWith("reduce")));
});

Deno.test("FLOPs of what is made again are told apart", () => {
  const step = llamaStep(2),
    before = recomputedFlops(step),
    { recomputed, other } = recomputedFlops(remat(step, policies.full));
  assertEquals([before.recomputed, before.other], [0, other]);
  assert(recomputed > 0.15 * other && recomputed < 0.35 * other);
});

Deno.test("a value that only a view shows to backward is made again with the view", () => {
  const graph = traceGraph("g", [], (builder) => {
    const [x, w] = ["x", "w"].map((name) => new Tensor(builder, builder.input(name, f64(4, 4))));
    builder.origin = at("layers.0");
    const y = x.matmul(w).exp(), z = y.transpose(0, 1).reshape("a b -> (a b)");
    builder.origin = at("'");
    return { z: z.mul(z), u: z.add(1) };
  });
  const after = verify(remat(graph, policies.full));
  assertSameMeaning(graph, after, 1, 0);
  assertEquals(
    after.nodes.filter(isRemade).map((n) => n.op),
    ["transpose", "contract", "exp", "transpose", "reshape"].slice(1),
  );
});

Deno.test("remat prints the step of a small Llama in each mode, side by side", () => {
  const step = llamaStep(2);
  const text = Object.entries(policies).map(([name, policy]) =>
    `mode ${name}: keeps ${kept(remat(step, policy)).join(", ")}\n\n` +
    print(remat(step, policy)).split("\n").filter((line) => /'( again)?$/.test(line)).join("\n")
  );
  golden("graph/remat", text.join("\n\n") + "\n");
});
