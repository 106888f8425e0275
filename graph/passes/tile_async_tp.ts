/** Pass `tile_async_tp`: exchanges of tensor parallelism beside the products that they belong to (Wang et al. 2022). A product of rows
 * that are gathered from the ranks of a group becomes one for each rank's rows, which go around: the own ones are multiplied first,
 * while the next are on their way. A product whose rows are summed and scattered becomes one for each rank's rows, whose sums go
 * around: the own ones come last, while those of the other ranks make their last step. The sum of a rank's rows is in the order of the
 * ring, beginning with the rank behind it.
 * @module */
import { parseDims } from "../dims.ts";
import { Editor } from "../edit.ts";
import { type Attrs, consumers, type Graph, inBackward, type Lookup, type Node, producers, type Value } from "../ir.ts";
import { num, nums, str } from "../op.ts";

/** Tiles the gathers and scatters over one axis of the mesh that feed products, or are fed by them. The meaning stays the same up to the order of sums. */
export function tileAsyncTp(graph: Graph, axis: string): Graph {
  const pass = new Overlap(graph);
  for (const node of graph.nodes) {
    if (String(node.attrs.axes) !== axis || node.inputs.length > 1) continue;
    if (node.op === "all_gather") pass.gather(node);
    if (node.op === "reduce_scatter" && node.attrs.by === "sum") pass.scatter(node);
  }
  return pass.edit.finish();
}

/** The dim of a product's result that one of its operands has, but not the other, as its dim `dim`; `undefined` where there is none. */
function freeDim({ attrs, inputs }: Node, operand: Value, dim: number): number | undefined {
  const terms = parseDims(str(attrs.dims)), at = inputs.indexOf(operand), [label] = terms.inputs[at][dim];
  const free = inputs[1 - at] !== operand && !terms.inputs[1 - at].some(([l]) => l === label);
  const found = free ? terms.outputs[0].findIndex(([l]) => l === label) : -1;
  return found < 0 ? undefined : found;
}

class Overlap {
  readonly edit: Editor;
  readonly #made: Lookup<Node>;
  readonly #uses: Lookup<readonly Node[]>;
  readonly #results: ReadonlySet<Value>;

  constructor(graph: Graph) {
    this.edit = new Editor(graph);
    this.#made = producers(graph);
    this.#uses = consumers(graph);
    this.#results = new Set(graph.outputs.map((o) => o.value));
  }

  /** A gather whose rows are multiplied right away. */
  gather(node: Node): void {
    const { edit } = this, [gathered] = node.outputs, dim = num(node.attrs.dim), group = groupOf(node);
    const products = (this.#uses.get(gathered) ?? []).flatMap((product) => {
      // A product of the other direction finds all rows there.
      const isHere = product.op === "contract" && !product.attrs.into && inBackward(product) === inBackward(node);
      const free = isHere ? freeDim(product, gathered, dim) : undefined;
      return free === undefined ? [] : [{ product, free, parts: [] as Value[] }];
    });
    if (products.length === 0) return;
    const at = products.at(-1)!.product, slices = [node.inputs[0]];
    for (let back = 0; back < group.size; back++) {
      const slice = slices[back];
      // The first step of the rows is made as early as the gather would be.
      const place = back === 0 ? node : at;
      if (back < group.size - 1) slices.push(edit.add(place, "ring_shift", [slice], group).outputs[0]);
      for (const { product, parts } of products) {
        const inputs = product.inputs.map((v) => v === gathered ? slice : v);
        parts.push(edit.add(at, "contract", inputs, product.attrs).outputs[0]);
      }
    }
    const join = (parts: Value[], dim: number) => edit.add(at, "concat_by_rank", parts, { ...group, dim }).outputs[0];
    products.forEach(({ product, free, parts }) => edit.replace(product.outputs[0], join(parts, free)));
    edit.replace(gathered, join(slices, dim));
  }

  /** A scatter of a sum that products make. What is rounded to bf16 is summed in f32 by the scatter, and stays as it is. */
  scatter(node: Node): void {
    const { edit } = this, [sum] = node.inputs, dim = num(node.attrs.dim), group = groupOf(node);
    if (sum.dtype === "bf16" || !this.#isProduct(sum, dim)) return;
    const at = this.#made.get(sum)!,
      rows = (back: number) => this.#rows(sum, { ...group, dim, ...(back ? { back } : {}) }, at);
    const add = (place: Node, some: Value, others: Value) => edit.add(place, "add", [some, others]).outputs[0];
    let onTheWay: Value | undefined;
    for (let back = 1; back < group.size; back++) {
      const part = rows(back);
      onTheWay = edit.add(at, "ring_shift", [onTheWay ? add(at, onTheWay, part) : part], group).outputs[0];
    }
    // Whatever comes between the product and the scatter need not wait for the last step.
    edit.replace(node.outputs[0], add(node, onTheWay!, rows(0)));
  }

  /** Does the value come of products, and element-wise work on them, whose rows can be made by themselves? Nobody else reads it. */
  #isProduct(value: Value, dim: number): boolean {
    const node = this.#made.get(value);
    if (!node || this.#results.has(value) || this.#uses.get(value)!.length > 1) return false;
    if (node.op === "contract") return operandOf(node, dim) !== undefined;
    return (node.op === "map" || node.op === "add") && node.outputs.length === 1 &&
      node.inputs.some((v) => this.#isProduct(v, dim));
  }

  /** Rows of a value, made where `at` stands. */
  #rows(value: Value, slice: Attrs, at: Node): Value {
    const { edit } = this, dim = num(slice.dim);
    if (!this.#isProduct(value, dim)) return edit.add(at, "slice_by_rank", [value], slice).outputs[0];
    const node = this.#made.get(value)!;
    if (node.op === "contract") {
      const operand = operandOf(node, dim)!;
      const inputs = node.inputs.map((v, i) =>
        i === operand.at ? edit.add(at, "slice_by_rank", [v], { ...slice, dim: operand.dim }).outputs[0] : v
      );
      return edit.add(at, "contract", inputs, node.attrs).outputs[0];
    }
    const inputs = node.inputs.map((v) => this.#rows(v, slice, at)), { shape } = node.attrs;
    const short = nums(shape ?? []).map((n, d) => d === dim ? n / num(slice.size) : n);
    return edit.add(at, node.op, inputs, shape ? { ...node.attrs, shape: short } : node.attrs).outputs[0];
  }
}

/** Which operand of a product has the dim `dim` of its result, and where. */
function operandOf({ attrs, inputs: [a, b] }: Node, dim: number): { at: number; dim: number } | undefined {
  const { inputs, outputs: [out] } = parseDims(str(attrs.dims)), [label] = out[dim];
  const found = inputs.map((term) => term.findIndex(([l]) => l === label)), at = found.findIndex((d) => d >= 0);
  return found[1 - at] < 0 && a !== b ? { at, dim: found[at] } : undefined;
}

const groupOf = ({ attrs: { axes, size } }: Node): { axes: string[]; size: number } => ({
  axes: axes as string[],
  size: num(size),
});
