/** Attention on GPUs: by cuDNN where queries and keys stand in the order of their positions and all is stored as bf16, else by the
 * kernels of `csrc/cuda/ops/`, which look at positions and documents. Neither turns heads while it loads them: keys would be turned again
 * for each tile of queries, and cuDNN does not.
 * @module */
import type { Node } from "../../ir.ts";
import { attention as cpu } from "../cpu/attention.ts";
import type { Lowering, Lowerings } from "../target.ts";

/** The largest head that cuDNN takes forward and backward on every architecture from sm_80 on; each is a multiple of 8 ("Attention" in
 * cuDNN's documentation, support matrix). */
const MOST_HEAD_SIZE = 128;

/** Bytes that cuDNN's plans need at least, whatever they do. */
const WORKSPACE = 256;

/** Does cuDNN run it? */
export function isByCudnn({ inputs: [q, k, ...more], outputs, attrs }: Node): boolean {
  const size = q.shape[3], heads = [q, k, ...more, ...outputs].filter((v) => v.shape.length === 4);
  const fits = size % 8 === 0 && size <= MOST_HEAD_SIZE && q.shape[1] > 1;
  return attrs.ordered === true && !attrs.rope && fits && heads.every((v) => v.dtype === "bf16");
}

/** The most that cuDNN's plan for the gradient needs: dq in f32, a number for each query of each head, a counter for each 64, and where
 * heads share keys, the gradients of these by each head, in bf16. `tests/native/cudnn_plans_test.ts` holds plans to it. */
function gradientWorkspace({ inputs: [q, k] }: Node): number {
  const [b, t, h, size] = q.shape, [, s, g] = k.shape;
  return WORKSPACE + b * h * (4 * t * (size + 1) + 8 * Math.ceil(t / 64) + (g < h ? 4 * s * size : 0));
}

/** The call without the positions, which then are those of the rows, where cuDNN runs it.
 * @param at where the kernel has them. @param workspace of cuDNN. */
function byCudnn(own: Lowering, at: number, workspace: (node: Node) => number): Lowering {
  return {
    ...own,
    castsOperands: true,
    castsResults: true,
    kernel: (node) => {
      const call = own.kernel!(node);
      if (!isByCudnn(node)) return call;
      const operands: typeof call.operands = (inputs, outputs) =>
        call.operands!(inputs, outputs).with(at, undefined).with(at + 1, undefined);
      return { ...call, operands };
    },
    scratch: (node, threads) => Math.max(own.scratch!(node, threads), isByCudnn(node) ? workspace(node) : 0),
  };
}

/** How attention runs. */
export const attention: Lowerings = {
  ...cpu,
  attention: byCudnn(cpu.attention!, 5, () => WORKSPACE),
  attention_backward: byCudnn(cpu.attention_backward!, 8, gradientWorkspace),
};
