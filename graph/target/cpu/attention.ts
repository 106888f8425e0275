/** Attention on the CPU, with the rotation of heads.
 * @module */
import { type Attrs, dtypeBytes, type Node, wide } from "../../ir.ts";
import { num } from "../../op.ts";
import { numFirst, operandsBehind } from "../../ops/attention.ts";
import type { Lowerings } from "../target.ts";

/** Queries and keys go through attention in blocks of this many. */
const BLOCK = 64;

const padded = (n: number, to: number): number => Math.ceil(n / to) * to;

/** Bytes per thread, as csrc/cpu/ops/attention*.cpp lay them out: `whole` tensors of a head's padded keys, `blocks` of a block of
 * queries, `tiles` of scores, all in f32 or f64 however q is stored, and the range of positions and documents of each block of keys. */
function scratchBytes({ inputs: [{ dtype }, k] }: Node, threads: number, whole: number, blocks: number, tiles: number) {
  const [, s, , size] = k.shape, p = padded(size, 16), keys = padded(s, BLOCK);
  const elements = whole * keys * p + blocks * BLOCK * p + tiles * BLOCK * BLOCK;
  return threads * padded(elements * dtypeBytes[wide(dtype)] + keys / BLOCK * 16, 64);
}

/** Tables, positions and documents in the order of the kernels. */
const inKernelOrder = <T>(rest: readonly T[], attrs: Attrs): (T | undefined)[] => {
  const { qPositions, kPositions, documents, tables } = operandsBehind(rest, attrs);
  return [tables[0], tables[1], qPositions, kPositions, documents[0], documents[1]];
};

const constants = ({ scale, round }: Attrs) => ({ scale: num(scale), bf16: round === "bf16" ? 1 : 0 });

/** How attention runs. */
export const attention: Lowerings = {
  attention: {
    kernel: ({ attrs }) => ({
      kernel: "attention",
      attrs: constants(attrs),
      operands: (inputs, outputs) => {
        const first = numFirst(attrs), [o, lse] = inputs.slice(3, first);
        return [...inputs.slice(0, 3), ...inKernelOrder(inputs.slice(first), attrs), o, lse, ...outputs];
      },
    }),
    scratch: (node, threads) => scratchBytes(node, threads, 2, 2, 1),
    // A block of queries is read before it is written.
    inPlace: ({ attrs }) => attrs.others ? [[0, 3], [1, 4]] : [],
  },
  attention_backward: {
    kernel: ({ attrs }) => ({
      kernel: "attention_backward",
      attrs: constants(attrs),
      operands: (inputs, outputs) => [...inputs.slice(0, 6), ...inKernelOrder(inputs.slice(6), attrs), ...outputs],
    }),
    scratch: (node, threads) => scratchBytes(node, threads, 4, 5, 2),
  },
  rope_table: {
    kernel: ({ attrs }) => ({
      kernel: "rope_table",
      attrs: Object.fromEntries(["theta", "factor", "low", "high", "original"].map((k) => [k, num(attrs[k])])),
    }),
  },
  rope: {
    kernel: ({ attrs }) => ({ kernel: "rope", attrs: { inverse: attrs.inverse ? 1 : 0 } }),
    inPlace: () => [[0, 0]],
  },
};
