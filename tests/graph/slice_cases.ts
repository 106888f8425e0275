/** Rows of `op_cases.ts` for what a rank does to its slice of a larger tensor.
 * @module */
import { n, onehot, type OpCase, r } from "./op_case.ts";

/** The rows. */
export const sliceCases: readonly OpCase[] = [
  {
    op: "embedding",
    title: "of a slice of the table",
    inputs: [n([2, 3], 0, 5), r([3, 2])],
    attrs: { start: 2, whole: 6 },
    gives: ["f64[2,3,2]"],
    like: (ids, slice) => {
      const zeros = (rows: number) => slice.constant(0, [rows, 2]);
      return ids.apply("embedding", [zeros(2).concat([slice, zeros(1)], 0)]);
    },
  },
  {
    op: "embedding_backward",
    title: "of a slice of the table",
    inputs: [n([2, 3], 0, 5), r([2, 3, 2])],
    attrs: { rows: 3, start: 2, whole: 6 },
    gives: ["f64[3,2]"],
    like: (ids, dy) => [ids.apply("embedding_backward", [dy], { rows: 6 })[0].slice([2, 0], [3, 2])],
  },
  {
    op: "cross_entropy_part",
    inputs: [r([2, 3, 4]), n([2, 3], -1, 7)],
    attrs: { ignore_index: -1, start: 2, whole: 8 },
    gives: ["f64[2,3]", "f64[2,3]"],
    gradient: false,
    flops: 4 * 24,
    like: (logits, targets) => {
      const whole = logits.constant(0, [2, 3, 2]).concat([logits, logits.constant(0, [2, 3, 2])], 2);
      return [logits.exp().sum(2).log(), whole.mul(onehot(targets, whole)).sum(2)];
    },
    refuses: [{
      inputs: [r([2, 4]), n([3], 0, 3)],
      attrs: { ignore_index: -1, start: 0, whole: 4 },
      says: "is 2 and 3",
    }],
  },
  {
    op: "cross_entropy_backward",
    title: "of a slice of the vocabulary",
    inputs: [r([2, 3, 4]), n([2, 3], -1, 7), r([2, 3], 1, 2), r([])],
    attrs: { ignore_index: -1, start: 2, whole: 8 },
    gives: ["f64[2,3,4]"],
    gradient: false,
    like: (logits, targets, lse, dloss) => {
      const whole = logits.constant(0, [2, 3, 2]).concat([logits, logits.constant(0, [2, 3, 2])], 2);
      const all = whole.apply("cross_entropy_backward", [targets, lse, dloss], { ignore_index: -1 })[0];
      return [all.slice([0, 0, 2], [2, 3, 4])];
    },
  },
  {
    op: "random",
    title: "in a box that reaches out of the whole",
    inputs: [n([2], 0, 1000)],
    attrs: {
      kind: "normal",
      name: "w",
      a: 0,
      b: 1,
      dtype: "f64",
      shape: [2, 2],
      whole: [4, 5],
      starts: [2, 3],
      ends: [3, 5],
    },
    gives: ["f64[2,2]"],
    like: (seed) => {
      const [whole] = seed.apply("random", [], { kind: "normal", name: "w", a: 0, b: 1, dtype: "f64", shape: [4, 5] });
      return [whole.slice([2, 3], [1, 2]).concat([whole.constant(0, [1, 2])], 0)];
    },
  },
];
