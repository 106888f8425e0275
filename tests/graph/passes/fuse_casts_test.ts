import { assertEquals } from "@std/assert";
import { f32 } from "../../../graph/builder.ts";
import type { Graph, State } from "../../../graph/ir.ts";
import { castsIntoKernels, castsIntoProducts } from "../../../graph/passes/fuse_casts.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { traceGraph } from "../../../graph/trace.ts";
import { verify } from "../../../graph/verify.ts";
import { assertSameMeaning } from "../random_graphs.ts";
import { opsOf } from "./graphs.ts";

const parameter = (name: string, ...shape: number[]): State => ({ name, kind: "parameter", ...f32(...shape) });
const x = (t: Tensor, y: Tensor): Tensor => t.apply("contract", [y], { dims: "b i, o i -> b o", round: "bf16" })[0];

/** A graph over `x [2, 4]` and the parameters `w [3, 4]`, `norm [4]`. */
function trace(fn: (x: Tensor, w: Tensor, norm: Tensor) => Tensor): Graph {
  return traceGraph("g", [parameter("w", 3, 4), parameter("norm", 4)], (builder) => {
    const [w, norm] = ["w", "norm"].map((name) => new Tensor(builder, builder.read(name)));
    return { y: fn(new Tensor(builder, builder.input("x", f32(2, 4))), w, norm) };
  });
}

function after(rule: (graph: Graph) => Graph, graph: Graph): Graph {
  const result = verify(rule(verify(graph)));
  assertSameMeaning(graph, result, 1);
  return result;
}

const normed = (t: Tensor, norm: Tensor): Tensor => t.apply("rmsnorm", [norm], { eps: 0.1 })[0];

Deno.test("a product reads the f32 weights, and an f32 input, itself", () => {
  const graph = after(castsIntoProducts, trace((t, w) => x(t.cast("bf16"), w.cast("bf16"))));
  assertEquals(opsOf(graph), ["contract"]);
  assertEquals(graph.nodes.at(-1)!.inputs.map((v) => v.dtype), ["f32", "f32"]);
});

Deno.test("a value that only a cast reads is rounded where it is made", () => {
  const graph = trace((t, w, norm) => x(normed(t, norm).cast("bf16"), w.cast("bf16")));
  const products = after(castsIntoProducts, graph);
  assertEquals(opsOf(products), ["rmsnorm", "cast", "contract"]);
  const kernels = after(castsIntoKernels, products);
  assertEquals(opsOf(kernels), ["rmsnorm", "contract"]);
  assertEquals(kernels.nodes.find((n) => n.op === "rmsnorm")!.attrs.bf16, [0]);
});

Deno.test("a value that others need in f32 stays, and the product rounds it", () => {
  const graph = trace((t, w, norm) => {
    const y = normed(t, norm);
    return x(y.cast("bf16"), w.cast("bf16")).sum().add(y.sum());
  });
  const kernels = after(castsIntoKernels, after(castsIntoProducts, graph));
  assertEquals(kernels.nodes.filter((n) => n.op === "cast" || n.attrs.bf16), []);
});

Deno.test("what no kernel can round as it stores it is rounded by the product", () => {
  const graph = trace((t, w) => x(t.softmax(-1).cast("bf16"), w.cast("bf16")));
  assertEquals(opsOf(after(castsIntoProducts, graph)).at(-1), "contract");
  assertEquals(after(castsIntoProducts, graph).nodes.some((n) => n.op === "cast"), false);
});

Deno.test("what is stored as bf16 is widened by whoever reads it, but products that do not round do not take it", () => {
  const graph = trace((t, w, norm) => {
    const stored = t.cast("bf16").cast("f32");
    return normed(stored, norm).sum().add(stored.exp().sum()).add(stored.contract("b i, o i -> b o", w).sum());
  });
  const kernels = after(castsIntoKernels, graph);
  const dtypeOf = (op: string) => kernels.nodes.find((n) => n.op === op)!.inputs[0].dtype;
  assertEquals(["rmsnorm", "exp", "contract"].map(dtypeOf), ["bf16", "bf16", "f32"]);
});
