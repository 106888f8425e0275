/** Which matrix product an einsum is: labels sorted into batch, rows (M), columns (N) and summed (K), each taken as one dim.
 * @module */
import { bindDims, parseDims } from "./dims.ts";
import { mergeDims, type View } from "./view.ts";

/** Views of both operands and of the result; of a matrix product `[batch, M, K]`, `[batch, K, N]`, `[batch, M, N]`. */
export interface Gemm {
  readonly a: View;
  readonly b: View;
  readonly c: View;
}

/** Labels of an einsum by their part in the product. */
export interface GemmLabels {
  readonly batch: readonly string[];
  readonly m: readonly string[];
  readonly n: readonly string[];
  readonly k: readonly string[];
}

/** Sorts the labels of an einsum of two operands. */
export function gemmLabels(dims: string): GemmLabels {
  const { inputs: [a, b], outputs: [out] } = parseDims(dims);
  const [la, lb, lc] = [a, b, out].map((t) => t.map((d) => d[0]));
  return {
    batch: lc.filter((l) => la.includes(l) && lb.includes(l)),
    m: lc.filter((l) => la.includes(l) && !lb.includes(l)),
    n: lc.filter((l) => !la.includes(l) && lb.includes(l)),
    k: la.filter((l) => lb.includes(l) && !lc.includes(l)),
  };
}

/** The product of views as one (batched) matrix product; a reason (text) when strides cannot say it.
 * @param operands as the einsum has them. @param options `fewestRows`: fewest rows of a slice that are worth a product of their own,
 * rather than a copy of all. */
export function gemmOf(dims: string, operands: Gemm, { fewestRows }: { readonly fewestRows: number }): Gemm | string {
  const labels = gemmLabels(dims), product = productOf(dims, labels, operands), [outer, ...inner] = labels.m;
  if (typeof product !== "string" || labels.batch.length > 0 || inner.length === 0) return product;
  // Slices of rows that lie apart, such as a slice of every sequence, are a batch with one right side for all.
  const { inputs: [term] } = parseDims(dims), sizes = bindDims(dims, [operands.a.shape, operands.b.shape]);
  const isSlice = term[0][0] === outer && inner.reduce((n, l) => n * sizes.get(l)!, 1) >= fewestRows;
  if (!isSlice) return product;
  const batched = productOf(dims, { ...labels, batch: [outer], m: inner }, operands);
  return typeof batched === "string" ? product : batched;
}

function productOf(dims: string, labels: GemmLabels, { a, b, c }: Gemm): Gemm | string {
  const { inputs: [ta, tb], outputs: [tc] } = parseDims(dims);
  const sizes = bindDims(dims, [a.shape, b.shape]);
  const terms = [{ name: "first operand", view: a, term: ta }, { name: "second operand", view: b, term: tb }, {
    name: "result",
    view: c,
    term: tc,
  }];
  const wanted = [["batch", "m", "k"], ["batch", "k", "n"], ["batch", "m", "n"]] as const;
  const views: View[] = [];
  for (const [i, { name, view, term }] of terms.entries()) {
    const strideOf = (l: string) => view.strides[term.findIndex((d) => d[0] === l)] ?? 0;
    const shape: number[] = [], strides: number[] = [];
    for (const part of wanted[i]) {
      const own = labels[part], lengths = own.map((l) => sizes.get(l)!);
      const stride = mergeDims(lengths, own.map(strideOf));
      if (stride === undefined) return `dims "${own.join(" ")}" of the ${name} have no common stride`;
      shape.push(lengths.reduce((n, s) => n * s, 1));
      strides.push(stride);
    }
    const dense = [1, 2].some((d) => strides[d] === 1 || shape[d] === 1);
    if (!dense) return `the ${name} has no dense dim`;
    if ([1, 2].some((d) => shape[d] > 1 && strides[d] === 0)) return `the ${name} repeats elements`;
    views.push({ offset: view.offset, shape, strides });
  }
  return { a: views[0], b: views[1], c: views[2] };
}
