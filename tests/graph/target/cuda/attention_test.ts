/** Attention of the target `cuda`: by cuDNN where queries and keys stand in the order of their positions.
 * @module */
import { assert, assertEquals } from "@std/assert";
import type { Graph, Node } from "../../../../graph/ir.ts";
import { fullPrecision, type Precision } from "../../../../graph/passes/precision.ts";
import { nodeText, print } from "../../../../graph/print.ts";
import { cpu } from "../../../../graph/target/cpu.ts";
import { cuda } from "../../../../graph/target/cuda.ts";
import { isByCudnn } from "../../../../graph/target/cuda/attention.ts";
import { callOf, type Target } from "../../../../graph/target/target.ts";
import { llama } from "../../../../model/llama.ts";
import type { LoadBalancer } from "../../../../parallel/balance.ts";
import { Mesh, type MeshOptions } from "../../../../parallel/mesh.ts";
import { compileGraphs } from "../../../../train/compile.ts";
import { bindRanks } from "../../../../train/ranks.ts";
import { traceMicrobatch } from "../../../../train/step.ts";
import { golden } from "../../../golden.ts";

const BF16: Precision = { ...fullPrecision, param: "bf16" };

/** How a step is made. */
interface Options {
  readonly target?: Target;
  readonly precision?: Precision;
  readonly documents?: boolean;
  readonly headDim?: number;
  readonly mesh?: MeshOptions;
  readonly balancer?: LoadBalancer;
}

/** A microbatch as it will run. */
function compiled(
  { target = cuda, precision = BF16, documents = false, headDim = 8, mesh, balancer }: Options = {},
): Graph {
  const model = llama("debug", { dim: 32, numLayers: 1, numHeads: 4, numKvHeads: 2, headDim, vocabSize: 64 });
  const graph = traceMicrobatch(model, { batch: 2, seqLen: 16, dtype: "f32", globalTokens: 32, documents });
  const ranks = mesh && bindRanks(model, [graph], { mesh: new Mesh(mesh, 2), rank: 0, balancer });
  return compileGraphs([graph], { threads: 1, target, precision, ranks }).graphs[0];
}

const attentionsOf = (graph: Graph): Node[] => graph.nodes.filter((n) => n.op.startsWith("attention"));

/** Does cuDNN run forward and backward? Both, or neither. */
function byCudnn(options: Options): boolean {
  const graph = compiled(options), nodes = attentionsOf(graph), { target = cuda } = options;
  assertEquals(nodes.map((n) => n.op), ["attention", "attention_backward"]);
  const [forward, backward] = nodes.map((node) => {
    const at = node.op === "attention" ? 5 : 8, given = callOf(target, node).operands!(node.inputs, node.outputs);
    assertEquals(given.length, node.op === "attention" ? 13 : 15);
    return given[at] === undefined && given[at + 1] === undefined;
  });
  assertEquals(forward, backward);
  return forward;
}

Deno.test("a Llama's attention in bf16 reads and writes bf16 on a GPU, knows its tokens' order, and has its heads turned elsewhere", () => {
  const graph = compiled(), names = new Map<unknown, string>();
  const name = (v: unknown) => names.get(v) ?? names.set(v, `%${names.size}`).get(v)!;
  const shown = graph.nodes.filter((n) => n.op.startsWith("attention") || n.op === "rope");
  golden("graph/cuda_attention", shown.map((n) => nodeText(n, name)).join("\n") + "\n");
  assert(print(graph).includes('"positions" counts'));
});

Deno.test("cuDNN runs attention in bf16 where queries and keys stand in order, on one GPU and with data and heads shared out", () => {
  assert(byCudnn({}));
  assert(byCudnn({ headDim: 128 }));
  for (const mesh of [{ dp_shard: 2 }, { dp_replicate: 2 }, { tp: 2 }]) assert(byCudnn({ mesh }), JSON.stringify(mesh));
});

Deno.test("cuDNN runs no attention in f32, within documents, over slices of a sequence, or with heads that it does not take", () => {
  assertEquals(byCudnn({ precision: fullPrecision }), false);
  assertEquals(byCudnn({ documents: true }), false);
  for (const headDim of [4, 12, 136]) assertEquals(byCudnn({ headDim }), false, `${headDim}`);
  for (const balancer of ["headtail", null] as const) assertEquals(byCudnn({ mesh: { cp: 2 }, balancer }), false);
});

Deno.test("positions count from 0 in shares of a batch, and not in slices of a sequence or where documents restart them", () => {
  const counts = (options: Options) => compiled(options).inputs.filter((i) => i.counts).map((i) => i.name);
  for (const mesh of [undefined, { dp_shard: 2 }, { tp: 2 }]) assertEquals(counts({ mesh }), ["positions"]);
  for (const balancer of ["headtail", null] as const) assertEquals(counts({ mesh: { cp: 2 }, balancer }), []);
  assertEquals(counts({ documents: true }), []);
});

Deno.test("CPUs are given the positions, and turn heads while they load them", () => {
  assertEquals(byCudnn({ target: cpu }), false);
  const nodes = attentionsOf(compiled({ target: cpu }));
  assertEquals(nodes.map(({ attrs }) => [attrs.ordered ?? false, attrs.rope ?? false]), [[false, true], [false, true]]);
});

Deno.test("cuDNN's workspace is planned: the gradient's is as large as the queries in f32, not the square of the tokens", () => {
  const [forward, backward] = attentionsOf(compiled()),
    scratch = (node: Node) => cuda.lowerings[node.op]!.scratch!(node, 1);
  const long = { ...backward, inputs: backward.inputs.map((v) => ({ ...v, shape: v.shape.with(1, 1 << 16) })) };
  assert(isByCudnn(forward) && isByCudnn(long));
  const queries = 4 * 2 * (1 << 16) * 4 * 8;
  assert(scratch(long) >= 2 * queries && scratch(long) < 4 * queries, `${scratch(long)} for ${queries}`);
});
