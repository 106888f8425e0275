/** Pass `tile_ring`: ring attention (Liu et al. 2023). Attention to keys and values that are gathered from the ranks of a group becomes
 * one for each rank's slice of them, while the slices go around: no rank ever has more than its own and two on their way. The shift
 * that brings the next slice stands in front of the attention to this one, so that both go on at once.
 *
 * In forward each slice is attended to on top of those before, the own one first. In backward the gradients of a slice go around as
 * well, one rank behind it, and each rank adds its part: the own slice comes last, while its gradients make their last step. Slices
 * come to rank r in the order r - 1, r - 2, ... of the group's ring, so every sum has one order.
 * @module */
import { Editor } from "../edit.ts";
import {
  type Attr,
  type Attrs,
  consumers,
  type Graph,
  type Lookup,
  type Node,
  type Phase,
  producers,
  type Value,
} from "../ir.ts";
import { num } from "../op.ts";
import { nodeText } from "../print.ts";
import { isViewOp } from "../facts.ts";

const refuse = (node: Node, why: string): never => {
  throw new TypeError(`Cannot let keys and values go around: ${why} in ${nodeText(node)}`);
};

/** Rotates keys and values wherever attention is given gathered ones. The meaning stays the same up to the order of sums.
 * @throws {TypeError} when keys are gathered, but values or gradients do not go along. */
export function tileRing(graph: Graph): Graph {
  const edit = new Editor(graph), made = producers(graph), uses = consumers(graph), slices = new Map<string, Value>();
  for (const node of graph.nodes) {
    const isBackward = node.op === "attention_backward";
    if (!isBackward && node.op !== "attention") continue;
    const [k, v] = [1, 2].map((i) => gatherOf(made, node.inputs[i]));
    if (!k) continue;
    if (!v || String(v.attrs.axes) !== String(k.attrs.axes)) return refuse(node, "values are not gathered like keys");
    const ring = new Ring(edit, node, [k.inputs[0], v.inputs[0]], k.attrs, slices);
    if (isBackward) backward(ring, made, uses);
    else forward(ring);
  }
  return edit.finish();
}

/** The gather of rows that makes a value. */
function gatherOf(made: Lookup<Node>, value: Value): Node | undefined {
  const node = made.get(value);
  return node?.op === "all_gather" && num(node.attrs.dim) === 1 ? node : undefined;
}

/** One attention (or gradient of one) whose keys and values go around. */
class Ring {
  /** Number of slices. */
  readonly size: number;
  readonly #group: { readonly axes: Attr; readonly size: number };

  /** @param own this rank's keys and values. @param gather attributes of what gathered them.
   * @param slices of positions and documents, shared by all layers. */
  constructor(
    readonly edit: Editor,
    readonly node: Node,
    readonly own: readonly Value[],
    gather: Attrs,
    readonly slices: Map<string, Value>,
  ) {
    this.size = num(gather.size);
    this.#group = { axes: gather.axes, size: this.size };
  }

  /** Hands values on, all at once. */
  shift(values: readonly Value[], phase: Phase = this.node.phase): Node {
    return this.edit.add(this.node, "ring_shift", values, this.#group, { ...this.node, phase });
  }

  /** Operands behind `first`, positions and documents in turns of queries and keys: those of the keys that come from `back` ranks
   * before. All ranks have them whole: they are small, and the same for all layers. */
  places(first: number, back: number): Value[] {
    return this.node.inputs.slice(first).map((value, i) => {
      if (i % 2 === 0) return value;
      const key = `${value.id} ${this.#group.axes} ${back}`, known = this.slices.get(key);
      if (known) return known;
      const attrs = { ...this.#group, dim: 1, ...(back > 0 ? { back } : {}) };
      const [slice] = this.edit.add(this.node, "slice_by_rank", [value], attrs).outputs;
      this.slices.set(key, slice);
      return slice;
    });
  }
}

function forward(ring: Ring): void {
  const { edit, node, size } = ring, [q] = node.inputs;
  let slice = ring.own, result: readonly Value[] = [];
  for (let back = 0; back < size; back++) {
    const next = back < size - 1 ? ring.shift(slice).outputs : [];
    // What is not done yet is not rounded to bf16.
    const { bf16, ...exact } = node.attrs, attrs = bf16 && back === size - 1 ? { ...exact, bf16 } : exact;
    const operands = [q, ...slice, ...result, ...ring.places(3, back)];
    result = edit.add(node, "attention", operands, back > 0 ? { ...attrs, others: true } : attrs).outputs;
    slice = next;
  }
  node.outputs.forEach((v, i) => edit.replace(v, result[i]));
}

function backward(ring: Ring, made: Lookup<Node>, uses: Lookup<readonly Node[]>): void {
  const { edit, node, size, own } = ring, [q] = node.inputs, rest = node.inputs.slice(3, 6);
  const scatters = node.outputs.slice(1).map((gradient) => {
    const [use, more] = uses.get(gradient) ?? [];
    const fits = use?.op === "reduce_scatter" && num(use.attrs.dim) === 1 && use.attrs.by === "sum" && !more;
    return fits ? use : refuse(node, `%${gradient.id} is not scattered to where its keys came from`);
  });
  const gradients = (slice: readonly Value[], back: number) =>
    edit.add(node, "attention_backward", [q, ...slice, ...rest, ...ring.places(6, back)], node.attrs).outputs;
  const sum = (some: readonly Value[], others: readonly Value[]) =>
    others.map((v, i) => some.length > 0 ? edit.add(node, "add", [some[i], v]).outputs[0] : v);
  // The first slice can be on its way since forward: it starts before the gradient of o is made.
  const first = ring.shift(own, "remade"), maker = made.get(memoryOf(made, rest[2]));
  if (maker) edit.move(first, maker);
  let slice: readonly Value[] = first.outputs, dq: Value[] = [], onTheWay: readonly Value[] = [];
  for (let back = 1; back < size; back++) {
    const next = back < size - 1 ? ring.shift(slice, "remade").outputs : [];
    const [dqPart, ...parts] = gradients(slice, back);
    dq = sum(dq, [dqPart]);
    onTheWay = ring.shift(sum(onTheWay, parts)).outputs;
    slice = next;
  }
  const [dqPart, ...parts] = gradients(own, 0);
  edit.replace(node.outputs[0], sum(dq, [dqPart])[0]);
  sum(onTheWay, parts).forEach((v, i) => edit.replace(scatters[i].outputs[0], v));
}

/** The value whose memory a view shows. */
function memoryOf(made: Lookup<Node>, value: Value): Value {
  const node = made.get(value);
  return node && isViewOp(node.op) ? memoryOf(made, node.inputs[0]) : value;
}
