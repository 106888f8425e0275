/** Where elements lie: offset and strides over some memory, in elements. Reshapes, transposes, slices and broadcasts of a view
 * are views again where strides can say it.
 * @module */
import { stridesOf } from "./array.ts";
import { bindDims, expandDims, shapeOf } from "./dims.ts";

/** A strided box of memory. Stride 0 repeats. */
export interface View {
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

/** The view of packed memory. */
export function packed(shape: readonly number[]): View {
  return { offset: 0, shape, strides: stridesOf(shape) };
}

/** Is the memory of a view dense, in row-major order? Dims of size 1 may have any stride. */
export function isPacked(view: View): boolean {
  const dense = stridesOf(view.shape);
  return view.shape.every((n, d) => n === 1 || view.strides[d] === dense[d]);
}

/** The box that starts at `starts`. */
export function sliceView(view: View, starts: readonly number[], shape: readonly number[]): View {
  return { offset: starts.reduce((sum, s, d) => sum + s * view.strides[d], view.offset), shape, strides: view.strides };
}

/** The one stride of several dims taken as one (outermost first), or `undefined` when they do not lie so. */
export function mergeDims(sizes: readonly number[], strides: readonly number[]): number | undefined {
  let size = 1, stride: number | undefined;
  for (let d = sizes.length - 1; d >= 0; d--) {
    if (sizes[d] === 1) continue;
    if (stride === undefined) stride = strides[d];
    else if (strides[d] !== stride * size) return undefined;
    size *= sizes[d];
  }
  return stride ?? 1;
}

/** A view through a dims pattern of one operand (reshape, transpose or broadcast): strides go from label to label; a label
 * that the input lacks repeats. `undefined` when an output dim cannot be said with one stride. */
export function throughDims(view: View, dims: string, sizes: Record<string, number> = {}): View | undefined {
  const bound = bindDims(dims, [view.shape], sizes);
  const { inputs: [from], outputs: [to] } = expandDims(dims, [view.shape.length]);
  const strideOf = new Map<string, number>();
  from.forEach((dim, d) => {
    let stride = view.strides[d];
    for (const label of dim.toReversed()) {
      if (label === "1") continue;
      strideOf.set(label, stride);
      stride *= bound.get(label)!;
    }
  });
  const strides: number[] = [];
  for (const dim of to) {
    const labels = dim.filter((l) => l !== "1");
    const stride = mergeDims(labels.map((l) => bound.get(l)!), labels.map((l) => strideOf.get(l) ?? 0));
    if (stride === undefined) return undefined;
    strides.push(stride);
  }
  return { offset: view.offset, shape: shapeOf(to, bound), strides };
}

/** Leading dims as one, so that `rank` dims are left; `undefined` when they have no common stride. */
export function collapseTo(view: View, rank: number): View | undefined {
  const lead = view.shape.length - rank + 1;
  if (lead === 1) return view;
  if (lead === 0) return { offset: view.offset, shape: [1, ...view.shape], strides: [0, ...view.strides] };
  if (rank === 0) return view.shape.every((n) => n === 1) ? { ...view, shape: [], strides: [] } : undefined;
  const stride = mergeDims(view.shape.slice(0, lead), view.strides.slice(0, lead));
  if (stride === undefined) return undefined;
  const size = view.shape.slice(0, lead).reduce((n, d) => n * d, 1);
  return {
    offset: view.offset,
    shape: [size, ...view.shape.slice(lead)],
    strides: [stride, ...view.strides.slice(lead)],
  };
}
