/** A target that no device has, for tests of how passes ask: in names, memory, calls and costs it differs from `cpu` as a GPU would.
 * @module */
import type { Node } from "../../../graph/ir.ts";
import type { Kernel } from "../../../graph/kernels.ts";
import { str } from "../../../graph/op.ts";
import { cpu } from "../../../graph/target/cpu.ts";
import type { KernelCall, Lowering, Target } from "../../../graph/target/target.ts";
import { gemmOf } from "../../../graph/gemm.ts";
import { isPacked, type View } from "../../../graph/view.ts";

const operand = (name: string) => ({ name, variadic: false, optional: false, bf16: true, float8: true });
const kernel = (index: number, inputs: string, outputs: string, rest: Partial<Kernel> = {}): Kernel => ({
  index,
  collective: false,
  inputs: inputs.split(" ").map(operand),
  outputs: outputs.split(" ").map(operand),
  scratch: false,
  attributes: [],
  dtypes: ["f32", "f64"],
  ...rest,
});

/** Kernels with names, numbers and operands of their own. */
const own: Record<string, Kernel> = {
  cublas_matmul: kernel(900, "b a", "c", {
    scratch: true,
    attributes: [{ name: "alpha", type: "f64" }, { name: "beta", type: "i64" }],
  }),
  cudnn_attention: kernel(901, "v k q q_positions k_positions", "lse o", {
    attributes: [{ name: "scale", type: "f64" }],
  }),
  cudnn_attention_backward: kernel(902, "q k v o lse do q_positions k_positions", "dq dk dv", {
    attributes: [{ name: "scale", type: "f64" }],
  }),
  cu_norm: kernel(903, "x w", "y rstd", { attributes: [{ name: "eps", type: "f64" }] }),
  cu_norm_backward: kernel(904, "x rstd w dy", "dx dw"),
};

const packedViews = (_node: Node, views: readonly View[]): readonly View[] | string =>
  views.every(isPacked) ? views : "an operand is not packed";

/** Bytes that the library of products works in, however many threads there are. */
export const WORKSPACE = 1 << 20;

const attention = (name: string, operands?: KernelCall["operands"]): Lowering => ({
  kernel: ({ attrs }) => ({ kernel: name, attrs: { scale: attrs.scale as number }, operands }),
  views: packedViews,
  castsOperands: true,
});

const renamed = (call: KernelCall): KernelCall => ({ ...call, kernel: `cu_${call.kernel}` });

/** The rest runs as on a CPU, by kernels of other names and numbers, without scratch and never in place. */
const rest = Object.entries(cpu.lowerings).map(([op, lowering]): [string, Lowering] => [op, {
  views: lowering!.views,
  kernel: (node) => renamed(lowering!.kernel?.(node) ?? { kernel: op, attrs: node.attrs as KernelCall["attrs"] }),
}]);

/** See above. Nothing is fused but element-wise work, and products that share an operand. */
export const dryCuda: Target = {
  name: "cuda",
  kernels: {
    ...Object.fromEntries(
      Object.entries(cpu.kernels).map(([name, k]) => [`cu_${name}`, { ...k, index: 500 + k.index, scratch: false }]),
    ),
    ...own,
  },
  lowerings: {
    ...Object.fromEntries(rest),
    contract: {
      kernel: () => ({ kernel: "cublas_matmul", attrs: { alpha: 1, beta: 0 }, operands: ([a, b], [c]) => [b, a, c] }),
      scratch: () => WORKSPACE,
      castsOperands: true,
      views: ({ attrs }, [a, b, c]) => {
        const gemm = gemmOf(str(attrs.dims), { a, b, c }, { fewestRows: 1 });
        return typeof gemm === "string" ? gemm : [gemm.a, gemm.b, gemm.c];
      },
    },
    attention: attention("cudnn_attention", ([q, k, v, ...more], [o, lse]) => [v, k, q, ...more, lse, o]),
    attention_backward: attention("cudnn_attention_backward"),
    rmsnorm: { kernel: ({ attrs }) => ({ kernel: "cu_norm", attrs: { eps: attrs.eps as number } }) },
    rmsnorm_backward: { kernel: () => ({ kernel: "cu_norm_backward", attrs: {} }) },
    add_rmsnorm: undefined,
  },
  copy: { kernel: "cu_copy", attrs: {} },
  fusions: new Set(["joinProducts", "accumulateInPlace", "castsIntoKernels", "fuseMaps"]),
  mapSteps: 4,
  chunks: { rows: 128, chunks: 8 },
  alignment: 256,
  page: 2 << 20,
  costs: {
    flopsPerSecond: { matmul: 1e15, attention: 5e14, cheap: 1e13, collective: Infinity },
    bytesPerSecond: 3e12,
  },
};
