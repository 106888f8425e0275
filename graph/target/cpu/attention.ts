/** Attention on the CPU, with the rotation of heads.
 * @module */
import { type Attrs, dtypeBytes, type Node, wide } from "../../ir.ts";
import { num } from "../../op.ts";
import { numFirst, operandsBehind } from "../../ops/attention.ts";
import type { Lowerings } from "../target.ts";

/** Queries and keys go through attention in tiles of this many. */
const TILE = 64;

const padded = (n: number, to: number): number => Math.ceil(n / to) * to;

/** How many tensors of each kind a thread has in scratch. */
type Tensors = Readonly<Record<"keys" | "queries" | "scores", number>>;

/** Bytes per thread, as csrc/cpu/ops/attention*.cpp lay them out: so many tensors of all of a head's padded `keys`, of a
 * tile of `queries`, and of a tile of `scores`, all in f32 or f64 however q is stored, and the range of positions and documents of each
 * tile of keys. */
function scratchBytes({ inputs: [{ dtype }, k] }: Node, threads: number, { keys, queries, scores }: Tensors) {
  const [, s, , size] = k.shape, p = padded(size, 16), length = padded(s, TILE);
  const elements = keys * length * p + queries * TILE * p + scores * TILE * TILE;
  return threads * padded(elements * dtypeBytes[wide(dtype)] + length / TILE * 16, 64);
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
    scratch: (node, threads) => scratchBytes(node, threads, { keys: 2, queries: 2, scores: 1 }),
    // A tile of queries is read before it is written.
    inPlace: ({ attrs }) => attrs.others ? [[0, 3], [1, 4]] : [],
  },
  attention_backward: {
    kernel: ({ attrs }) => ({
      kernel: "attention_backward",
      attrs: constants(attrs),
      operands: (inputs, outputs) => [...inputs.slice(0, 6), ...inKernelOrder(inputs.slice(6), attrs), ...outputs],
    }),
    scratch: (node, threads) => scratchBytes(node, threads, { keys: 4, queries: 5, scores: 2 }),
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
