/** Cross-entropy of logits `[..., V]` with target ids, summed over the rows whose target is not `ignore_index`.
 * loss = sum of lse - logits[target], lse = log sum exp(logits). The mean is the caller's: loss / count.
 * @module */
import { arr } from "../array.ts";
import { dtypeBytes, numel } from "../ir.ts";
import { defineOp, num, type Op } from "../op.ts";

/** `logits, targets -> loss [], count [], lse [...]` */
export const crossEntropy: Op = defineOp({
  name: "cross_entropy",
  integers: [1],
  dims: "... v, ... -> , , ...",
  reference: ([logits, targets], attrs, [, , lseType]) => {
    const v = logits.shape.at(-1)!, lse = arr(lseType.shape), loss = arr([]), count = arr([]);
    targets.data.forEach((target, n) => {
      const row = logits.data.subarray(n * v, (n + 1) * v), max = row.reduce((m, x) => Math.max(m, x), -Infinity);
      lse.data[n] = max + Math.log(row.reduce((s, x) => s + Math.exp(x - max), 0));
      if (target === num(attrs.ignore_index)) return;
      loss.data[0] += lse.data[n] - row[target];
      count.data[0]++;
    });
    return [loss, count, lse];
  },
  vjp: ({ inputs: [logits, targets], outputs: [, , lse], cotangents: [dloss, , dlse], attrs }) => {
    if (dlse) throw new TypeError(`Cannot differentiate through "lse" of cross_entropy`);
    const scale = dloss ?? logits.constant(0);
    return [logits.apply("cross_entropy_backward", [targets, lse, scale], attrs)[0], undefined];
  },
  recompute: "cheap",
  flops: (node) => 4 * numel(node.inputs[0].shape),
  scratch: (node) => 2 * numel(node.inputs[1].shape) * dtypeBytes[node.inputs[0].dtype],
});

/** `logits, targets, lse, dloss [] -> dlogits` = dloss (softmax(logits) - onehot(target)), 0 for ignored rows. */
export const crossEntropyBackward: Op = defineOp({
  name: "cross_entropy_backward",
  integers: [1],
  dims: "... v, ..., ..., -> ... v",
  reference: ([logits, targets, lse, dloss], attrs) => {
    const v = logits.shape.at(-1)!, out = arr(logits.shape);
    targets.data.forEach((target, n) => {
      if (target === num(attrs.ignore_index)) return;
      for (let k = 0; k < v; k++) out.data[n * v + k] = dloss.data[0] * Math.exp(logits.data[n * v + k] - lse.data[n]);
      out.data[n * v + target] -= dloss.data[0];
    });
    return [out];
  },
  recompute: "cheap",
  flops: (node) => 3 * numel(node.inputs[0].shape),
  inPlace: () => [[0, 0]],
});
