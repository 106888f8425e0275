/** The target `cuda`: NVIDIA's GPUs, by the kernels of `csrc/cuda/ops/`. They are twins of the CPU's, with the same operands and the same
 * checks, so that ops are called alike; what differs is attention, memory, and what is dear.
 * @module */
import { dtypeBytes, numel, wide } from "../ir.ts";
import { kernels } from "../kernels.ts";
import { cpu } from "./cpu.ts";
import { attention } from "./cuda/attention.ts";
import { memoryBeside } from "./cuda/memory.ts";
import { orderedAttention } from "./cuda/ordered_attention.ts";
import type { Fusion, Lowering, Lowerings, Target } from "./target.ts";

/** How a GPU runs what it runs in another way than a CPU. */
const own: Lowerings = {
  contract: {
    ...cpu.lowerings.contract,
    // Tensor cores take float8 only where both operands are contiguous along what is summed over.
    views(node, views) {
      const taken = cpu.lowerings.contract!.views!(node, views);
      if (typeof taken === "string" || !node.inputs.every((v) => v.dtype.startsWith("f8"))) return taken;
      const [a, b] = taken, contiguous = a.shape[2] === 1 || (a.strides[2] === 1 && b.strides[1] === 1);
      return contiguous ? taken : "operands of float8 are not contiguous along what is summed over";
    },
  },
  rmsnorm_backward: {
    ...cpu.lowerings.rmsnorm_backward,
    // dw is summed by up to 512 blocks, each in a row of its own: four for each multiprocessor of an H100.
    scratch: ({ inputs: [x, rstd, w] }) => Math.min(512, numel(rstd.shape)) * w.shape[0] * dtypeBytes[wide(x.dtype)],
  },
};

/** What does not pay: cuBLASLt rounds no operands, and heads are turned by a kernel of their own. */
const UNPAID: readonly Fusion[] = ["castsIntoProducts", "ropeIntoAttention"];

/** GPUs. */
export const cuda: Target = {
  name: "cuda",
  kernels,
  lowerings: { ...cpu.lowerings, ...own, ...attention },
  copy: cpu.copy,
  // Each saves passes over memory and launches, of which a GPU has less time to hide than a CPU.
  fusions: new Set([...cpu.fusions].filter((fusion) => !UNPAID.includes(fusion))),
  ownFusion: orderedAttention,
  mapSteps: 48,
  chunks: { rows: 4096, chunks: 32 }, // a product of fewer rows leaves multiprocessors without work
  alignment: 256, // as cudaMalloc gives it: vector loads, and whole lines of memory
  page: 2 << 20, // what the driver maps at a time
  // Of an H100 (cuda/gpus.ts), less what no kernel reaches: two thirds of its peak in products, half of it in attention.
  costs: {
    flopsPerSecond: { matmul: 660e12, attention: 490e12, cheap: Infinity, collective: Infinity },
    bytesPerSecond: 3e12,
  },
  memoryBeside,
};

/** GPUs before sm_90: there the workspace of a gradient by cuDNN that is the same bit for bit each time grows with the square of the tokens. */
const before90: Target = { ...cuda, ownFusion: undefined };

/** The same with products of f32 rounded to TF32, as tensor cores take them. */
const inTf32 = (target: Target): Target => {
  const contract: Lowering = {
    ...own.contract,
    kernel(node) {
      const call = own.contract!.kernel!(node);
      return node.outputs[0].dtype === "f32" && !call.attrs.bf16
        ? { ...call, attrs: { ...call.attrs, bf16: 2 } }
        : call;
    },
  };
  return { ...target, lowerings: { ...target.lowerings, contract } };
};

/** What compiles for a device.
 * @param device its kind, and of a GPU its architecture; `auto`, where no device is here, is the CPU.
 * @param precision may its products of f32 be rounded to TF32, if it is a GPU? */
export function targetOf(
  { kind, level = "sm_90" }: { readonly kind: "auto" | "cpu" | "cuda"; readonly level?: string },
  { tf32 = false }: { readonly tf32?: boolean } = {},
): Target {
  if (kind !== "cuda") return cpu;
  const target = Number(level.slice("sm_".length)) < 90 ? before90 : cuda;
  return tf32 ? inTf32(target) : target;
}
