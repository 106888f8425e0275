import { arr } from "../array.ts";
import { numel } from "../ir.ts";
import { defineOp, num, type Op } from "../op.ts";

/** Running sums along a dim: `y[i] = x[0] + ... + x[i]`. Integers wrap around. */
export const cumsum: Op = defineOp({
  name: "cumsum",
  attrs: {
    dim: { type: "integer", doc: "along which" },
    exclusive: { type: "flag", optional: true, doc: "does each sum leave out its own element?" },
    reverse: { type: "flag", optional: true, doc: "from the end on?" },
  },
  dims: (attrs, [rank]) => {
    const dim = num(attrs.dim), labels = Array.from({ length: rank }, (_, d) => d === dim ? "scanned" : `dim${d}`);
    if (!(dim in labels)) throw new TypeError(`there is no dim ${dim} among ${rank}`);
    return `${labels.join(" ")} -> ${labels.join(" ")}`;
  },
  reference: ([x], attrs, [{ dtype }]) => {
    const y = arr(x.shape), dim = num(attrs.dim), n = x.shape[dim], step = numel(x.shape.slice(dim + 1));
    const add = (a: number, b: number) => dtype === "i32" ? a + b | 0 : a + b;
    for (let line = 0; line < x.data.length / n; line++) {
      const start = Math.floor(line / step) * n * step + line % step;
      for (let i = 0, sum = 0; i < n; i++) {
        const at = start + (attrs.reverse ? n - 1 - i : i) * step, next = add(sum, x.data[at]);
        y.data[at] = attrs.exclusive ? sum : next;
        sum = next;
      }
    }
    return [y];
  },
  vjp: ({ cotangents: [dy], attrs }) => dy!.apply("cumsum", [], { ...attrs, reverse: !attrs.reverse }),
  split: { whole: ["scanned"], ordered: ({ attrs }) => [num(attrs.dim)], linear: "all" },
  recompute: "cheap",
  flops: (node) => numel(node.inputs[0].shape),
});
