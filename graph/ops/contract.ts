import { ADDED, ROUND, STORED } from "../attributes.ts";
import { arr, forEachIndex, roundedTo, stridesOf } from "../array.ts";
import { bindDims, type Dim, parseDims } from "../dims.ts";
import { numel } from "../ir.ts";
import { defineOp, mayBeBf16, type Op, str } from "../op.ts";

/** `"a b, b c -> a c"` with its terms in another order, e.g. `[2, 1, 0]` for the gradient of the first operand. */
export function permuteTerms(dims: string, [a, b, out]: readonly [number, number, number]): string {
  const [left, right] = dims.split("->");
  const terms = [...left.split(","), right].map((t) => t.trim());
  return `${terms[a]}, ${terms[b]} -> ${terms[out]}`;
}

/** Product of two tensors, by an einsum: `"b t i, o i -> b t o"`. Labels that the output lacks are summed over.
 * Closed under differentiation: each gradient is the same product with its terms in another order. With the attribute `round`
 * both operands are rounded to that type first; sums are in f32 all the same. */
export const contract: Op = defineOp({
  name: "contract",
  attrs: { dims: { type: "text", doc: "the einsum" }, ...ROUND, ...STORED, ...ADDED },
  integers: [],
  dims: (attrs) => {
    const dims = str(attrs.dims);
    const { inputs, outputs } = parseDims(dims);
    if (inputs.length !== 2) throw new TypeError(`"${dims}" needs two operands`);
    const has = (term: readonly Dim[], label: string) => term.some((d) => d[0] === label);
    inputs.forEach((term, i) => {
      for (const [label] of term) {
        if (!has(outputs[0], label) && !has(inputs[1 - i], label)) {
          throw new TypeError(`"${dims}" sums over "${label}", which only one operand has; reduce it first`);
        }
      }
    });
    return dims;
  },
  bf16: mayBeBf16([0, 1], [0]),
  float8: mayBeBf16([0, 1], []),
  reference: (operands, attrs, [type]) => {
    const [a, b] = attrs.round ? operands.map((x) => roundedTo(str(attrs.round), x)) : operands;
    const dims = str(attrs.dims), signature = parseDims(dims);
    const sizes = bindDims(dims, [a.shape, b.shape]);
    const labels = [...sizes.keys()];
    const terms = [...signature.inputs, signature.outputs[0]];
    const strides = terms.map((term, i) => {
      const own = stridesOf([a, b, type][i].shape);
      return labels.map((l) => {
        const k = term.findIndex((d) => d[0] === l);
        return k < 0 ? 0 : own[k];
      });
    });
    const out = arr(type.shape);
    forEachIndex(labels.map((l) => sizes.get(l)!), strides, ([i, j, o]) => out.data[o] += a.data[i] * b.data[j]);
    return [out];
  },
  vjp: ({ inputs: [a, b], cotangents: [dy], attrs }) => [
    dy!.contract(permuteTerms(str(attrs.dims), [2, 1, 0]), b),
    dy!.contract(permuteTerms(str(attrs.dims), [2, 0, 1]), a),
  ],
  split: { linear: [[0], [1]] },
  rowwise: "labels",
  rounding: { plain: true, stored: 0, keepsSums: true },
  takesRounded: true,
  recompute: "matmul",
  into: 0,
  flops: (node) => {
    const sizes = bindDims(str(node.attrs.dims), node.inputs.map((v) => v.shape));
    return 2 * numel([...sizes.values()]);
  },
});
