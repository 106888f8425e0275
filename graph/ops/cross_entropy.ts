/** Cross-entropy of logits `[..., V]` with target ids, summed over the rows whose target is not `ignore_index`.
 * loss = sum of lse - logits[target], lse = log sum exp(logits). The mean is the caller's: loss / count.
 * @module */
import { type Schema, SLICE } from "../attributes.ts";
import { arr } from "../array.ts";
import { numel } from "../ir.ts";
import { type Across, defineOp, num, type Op } from "../op.ts";
import type { Tensor } from "../tensor.ts";

const IGNORED: Schema = { ignore_index: { type: "integer", doc: "the target of rows that do not count" } };

/** `logits, targets -> loss [], count [], lse [...]` */
export const crossEntropy: Op = defineOp({
  name: "cross_entropy",
  rowwise: "labels",
  logits: 0,
  attrs: IGNORED,
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
  split: { across: { label: "v", emit: acrossVocabulary } },
  recompute: "cheap",
  flops: (node) => 4 * numel(node.inputs[0].shape),
});

/** Where each rank has a slice of the vocabulary: one maximum and two sums for each token. */
function acrossVocabulary({ inputs: [logits, targets], attrs, start, whole, allReduce }: Across): Tensor[] {
  const [part, own] = logits.apply("cross_entropy_part", [targets], { ...attrs, start, whole });
  const [max] = allReduce("max", part), [sum, logit] = allReduce("sum", part.sub(max).exp(), own);
  const lse = max.add(sum.log()), ids = targets.cast(logits.dtype);
  const valid = ids.equal(num(attrs.ignore_index)).neg().add(1);
  return [lse.sub(logit).mul(valid).sum(), valid.sum(), lse];
}

/** `logits, targets -> lse [...], logit [...]` of the slice that begins at `start` of a vocabulary of `whole`: log sum exp of its logits,
 * and the target's logit, 0 where the target is in another slice or ignored, NaN where it is in none. */
export const crossEntropyPart: Op = defineOp({
  name: "cross_entropy_part",
  rowwise: "labels",
  logits: 0,
  attrs: { ...IGNORED, ...SLICE },
  integers: [1],
  dims: "... v, ... -> ..., ...",
  reference: ([logits, targets], attrs, [type]) => {
    const v = logits.shape.at(-1)!, logit = arr(type.shape);
    targets.data.forEach((target, n) => {
      const k = target - num(attrs.start);
      if (target === num(attrs.ignore_index)) return;
      if (k >= 0 && k < v) logit.data[n] = logits.data[n * v + k];
      else if (target < 0 || target >= num(attrs.whole)) logit.data[n] = NaN;
    });
    return [crossEntropy.reference!([logits, targets], { ignore_index: NaN }, [type, type, type])[2], logit];
  },
  recompute: "cheap",
  flops: (node) => 4 * numel(node.inputs[0].shape),
});

/** `logits, targets, lse, dloss [] -> dlogits` = dloss (softmax(logits) - onehot(target)), 0 for ignored rows. With `start`, of the
 * slice of the vocabulary that begins there. */
export const crossEntropyBackward: Op = defineOp({
  name: "cross_entropy_backward",
  rowwise: "labels",
  attrs: { ...IGNORED, ...SLICE },
  integers: [1],
  dims: "... v, ..., ..., -> ... v",
  reference: ([logits, targets, lse, dloss], attrs) => {
    const v = logits.shape.at(-1)!, out = arr(logits.shape);
    targets.data.forEach((target, n) => {
      if (target === num(attrs.ignore_index)) return;
      for (let k = 0; k < v; k++) out.data[n * v + k] = dloss.data[0] * Math.exp(logits.data[n * v + k] - lse.data[n]);
      const own = target - num(attrs.start ?? 0);
      if (own >= 0 && own < v) out.data[n * v + own] -= dloss.data[0];
    });
    return [out];
  },
  split: { offset: "v", linear: [[3]] },
  recompute: "cheap",
  flops: (node) => 3 * numel(node.inputs[0].shape),
});
