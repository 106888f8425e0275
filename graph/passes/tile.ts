/** Pass `tile`: clones a subgraph for each slice of its rows and combines by concat or sum. Now used for head + cross-entropy:
 * the logits are never whole, and their gradient is made in the chunk that made them. Where ranks have slices of the vocabulary, a
 * chunk holds the exchanges about its rows.
 * @module */
import { Builder, opOf, withInputs } from "../builder.ts";
import { type Dim, expandDims, type Signature } from "../dims.ts";
import { positionsBefore, touchedStates } from "../edit.ts";
import { fillOf, rowsOf } from "../facts.ts";
import { type Graph, type Lookup, type Node, numel, type Origin, producers, type Value, withNodes } from "../ir.ts";
import { num } from "../op.ts";
import { nodeText, scopeText } from "../print.ts";
import type { Chunks } from "../target/target.ts";
import { removeDeadNodes } from "./simplify.ts";

/** How to tile. */
export interface TileOptions extends Chunks {
  /** Values to be made chunk by chunk, with all work on them; default: {@linkcode lossRegions}. */
  readonly values?: readonly Value[];
}

/** The subgraph that makes a value and works on all of its elements, with what it needs in between of each row. The value's last dim
 * stays as it is, the others are its rows. */
interface Region {
  readonly value: Value;
  readonly nodes: ReadonlySet<Node>;
  /** For each node, which dim of the value each label of its signature runs along. */
  readonly bindings: ReadonlyMap<Node, ReadonlyMap<string, number>>;
  /** For each value made here, which dim of the tiled value each of its dims is (-1: none). */
  readonly carried: ReadonlyMap<Value, readonly number[]>;
}

/** Why a value cannot be tiled, in words. */
type Refusal = string;

const refusal = (node: Node, why: string): Refusal => `${why} in ${nodeText(node)}`;

/** Nodes that a region may have, with how their labels run. */
function signatureOf(node: Node): Signature | Refusal {
  const ranks = node.inputs.map((v) => v.shape.length), rows = rowsOf(node.op);
  if (rows === "dims") {
    const term: Dim[] = node.outputs[0].shape.map((_, d) => [`dim${d}`]);
    return { inputs: ranks.map(() => term), outputs: node.outputs.map(() => term) };
  }
  if (rows === undefined || touchedStates(node).length > 0) {
    return refusal(node, `"${node.op}" is not known to work row by row`);
  }
  const dims = opOf(node.op).dims!;
  return expandDims(typeof dims === "function" ? dims(node.attrs, ranks) : dims, ranks);
}

/** Which dim of the tiled value each label of a node runs along, as its operands (or for the first node, its output) tell. */
function bind(
  node: Node,
  value: Value,
  known: readonly (readonly [term: readonly Dim[], dims: readonly number[]])[],
): Map<string, number> | Refusal {
  const binding = new Map<string, number>();
  for (const [term, dims] of known) {
    for (const [d, dim] of dims.entries()) {
      if (dim < 0) continue;
      const [label] = term[d];
      const other = [...binding].find(([l, k]) =>
        (l === label) !== (k === dim) && Math.min(k, dim) < value.shape.length - 1
      );
      if (other) return refusal(node, `rows are mixed ("${label}" and "${other[0]}")`);
      binding.set(label, dim);
    }
  }
  return binding;
}

/** The region of a value, or why it cannot be tiled. */
function regionOf(graph: Graph, value: Value): Region | Refusal {
  const source = producers(graph).get(value);
  if (!source) return `expected a value that a node of graph "${graph.name}" makes`;
  const region = regionWhere(graph, value, (node, hasLarge) => node === source || hasLarge);
  if (typeof region === "string") return region;
  const needed = between(graph, region.nodes);
  return needed.size === 0 ? region : regionWhere(graph, value, (node) => region.nodes.has(node) || needed.has(node));
}

/** The nodes outside of some that need what those make, and that those need. */
function between(graph: Graph, nodes: ReadonlySet<Node>): Set<Node> {
  const needs = positionsBefore(graph), found = new Set<Node>();
  const isLate = lateFlags(graph, nodes);
  for (let at = graph.nodes.length - 1; at >= 0; at--) {
    const node = graph.nodes[at];
    if (!nodes.has(node) && !found.has(node)) continue;
    for (const position of needs[at]) {
      if (isLate[position] && !nodes.has(graph.nodes[position])) found.add(graph.nodes[position]);
    }
  }
  return found;
}

/** For each position in a graph, 1 if its node needs, over others too, what some nodes make. */
function lateFlags(graph: Graph, nodes: ReadonlySet<Node>): Uint8Array {
  const needs = positionsBefore(graph), isLate = new Uint8Array(graph.nodes.length);
  for (let at = graph.nodes.findIndex((n) => nodes.has(n)); at < isLate.length; at++) {
    for (const position of needs[at]) if (isLate[position] || nodes.has(graph.nodes[position])) isLate[at] = 1;
  }
  return isLate;
}

/** The region of chosen nodes; a choice is told whether the node has an operand with all dims of the value. */
function regionWhere(
  graph: Graph,
  value: Value,
  isChosen: (node: Node, hasLarge: boolean) => boolean,
): Region | Refusal {
  const all = value.shape.map((_, d) => d), rows = all.slice(0, -1);
  const nodes = new Set<Node>(), bindings = new Map<Node, Map<string, number>>(), carried = new Map<Value, number[]>();
  const isLarge = (v: Value) => all.every((d) => carried.get(v)?.includes(d));
  for (const node of graph.nodes) {
    if (!isChosen(node, node.inputs.some(isLarge))) continue;
    const signature = signatureOf(node), at = node.outputs.indexOf(value);
    if (typeof signature === "string") return signature;
    const { inputs, outputs } = signature;
    const made = node.inputs.flatMap((v, i) => carried.has(v) ? [[inputs[i], carried.get(v)!] as const] : []);
    if (made.some(([, dims]) => !rows.every((d) => dims.includes(d)))) {
      return refusal(node, "a result of all rows comes back");
    }
    const binding = bind(node, value, at < 0 ? made : [[outputs[at], all]]);
    if (typeof binding === "string") return binding;
    const moved = rowsOf(node.op) === "dims" ? [node.attrs.dim, node.attrs.split, node.attrs.join] : [];
    if (moved.some((dim) => rows.includes(binding.get(`dim${dim}`) ?? -1))) {
      return refusal(node, "ranks exchange rows");
    }
    nodes.add(node);
    bindings.set(node, binding);
    node.outputs.forEach((v, i) => carried.set(v, outputs[i].map(([label]) => binding.get(label) ?? -1)));
  }
  return { value, nodes, bindings, carried };
}

/** A cross-entropy with its logits: those that a product makes, found through element-wise work on them and what ranks exchange of
 * them. */
interface Loss {
  readonly node: Node;
  readonly logits: Value;
  /** Why they cannot be made in chunks, where that is so. */
  readonly refusal?: Refusal;
}

const isLoss = ({ op }: Node): boolean => opOf(op).logits !== undefined;

function lossesOf(graph: Graph): Loss[] {
  const made = producers(graph), results = new Set(graph.outputs.map((o) => o.value));
  return graph.nodes.filter(isLoss).map((node): Loss => {
    let logits = node.inputs[opOf(node.op).logits!], source = made.get(logits);
    while (source && rowsOf(source.op) === "dims") {
      const inputs = source.inputs.filter((v) => fillOf(made.get(v)) === undefined);
      if (inputs.length !== 1) {
        return { node, logits, refusal: refusal(source, "they come of several values, not of one product") };
      }
      logits = inputs[0];
      source = made.get(logits);
    }
    if (!source || opOf(source.op).recompute !== "matmul") return { node, logits, refusal: "no product makes them" };
    const region = regionOf(graph, logits);
    if (typeof region === "string") return { node, logits, refusal: region };
    const isResult = [...region.carried].some(([v, dims]) =>
      results.has(v) && logits.shape.every((_, d) => dims.includes(d))
    );
    return isResult ? { node, logits, refusal: "they are a result of the graph" } : { node, logits };
  });
}

/** The logits of each cross-entropy that a product makes and that can be tiled. */
export function lossRegions(graph: Graph): Value[] {
  return [...new Set(lossesOf(graph).filter((l) => l.refusal === undefined).map((l) => l.logits))];
}

/** The nodes outside a region in two parts, each in its old order: what can stand in front of all chunks, and what comes after
 * them since it uses what they make (or was behind everything that the region needs). */
function split(graph: Graph, region: Region): { before: Node[]; after: Node[] } {
  const needs = positionsBefore(graph), isLate = lateFlags(graph, region.nodes);
  let last = graph.nodes.findIndex((n) => region.nodes.has(n));
  for (const [at, node] of graph.nodes.entries()) {
    if (!region.nodes.has(node)) continue;
    for (const position of needs[at]) if (!region.nodes.has(graph.nodes[position])) last = Math.max(last, position);
  }
  const before: Node[] = [], after: Node[] = [];
  for (const [at, node] of graph.nodes.entries()) {
    if (!region.nodes.has(node)) (at <= last && !isLate[at] ? before : after).push(node);
  }
  return { before, after };
}

/** One chunk: a box of rows. */
interface Box {
  readonly starts: readonly number[];
  readonly sizes: readonly number[];
}

/** Cuts rows of a shape into boxes of at most `limit` rows (but at least one), in row-major order: whole inner dims while they
 * fit, about equal parts of the dim that does not, one index at a time of the dims outside it. */
export function rowBoxes(shape: readonly number[], limit: number): Box[] {
  const inner = (d: number) => numel(shape.slice(d + 1));
  const cut = shape.findIndex((_, d) => inner(d) <= limit);
  const most = shape.map((n, d) =>
    d < cut ? 1 : d === cut ? Math.min(n, Math.max(1, Math.floor(limit / inner(d)))) : n
  );
  return shape.reduce<Box[]>((boxes, n, d) => {
    const step = Math.ceil(n / Math.ceil(n / most[d]));
    const starts = Array.from({ length: Math.ceil(n / step) }, (_, i) => i * step);
    return boxes.flatMap((box) =>
      starts.map((s) => ({ starts: [...box.starts, s], sizes: [...box.sizes, Math.min(step, n - s)] }))
    );
  }, [{ starts: [], sizes: [] }]);
}

/** Boxes of at most `limit` rows; where that makes more than `most` of them, of twice as many rows, and so on. */
export function chunkBoxes(shape: readonly number[], limit: number, most: number): Box[] {
  const rows = numel(shape);
  for (let size = limit;; size *= 2) {
    if (rows > size * most) continue; // without making boxes that are too many
    const boxes = rowBoxes(shape, size);
    if (boxes.length <= most) return boxes;
  }
}

/** Clones a region for one box: its values by the ones that they stand for. Operands from outside are sliced along the rows
 * that they have, once for all nodes of the chunk. */
function cloneChunk(builder: Builder, region: Region, made: Lookup<Node>, box: Box): Map<Value, Value> {
  const own = new Map<Value, Value>(), sliced = new Map<string, Value>();
  const sliceOf = (v: Value, dims: readonly number[], origin: Origin): Value => {
    const starts = dims.map((d) => box.starts[d] ?? 0), shape = dims.map((d, i) => box.sizes[d] ?? v.shape[i]);
    if (String(shape) === String(v.shape)) return v;
    const key = `${v.id} ${dims}`, known = sliced.get(key), source = made.get(v);
    if (known) return known;
    const [slice] = source && fillOf(source) !== undefined
      ? builder.emit(source.op, [], { ...source.attrs, shape }, origin)
      : builder.emit("slice", [v], { starts, shape }, origin);
    sliced.set(key, slice);
    return slice;
  };
  for (const node of region.nodes) {
    const { inputs } = signatureOf(node) as Signature, binding = region.bindings.get(node)!;
    const operands = node.inputs.map((v, i) =>
      own.get(v) ?? sliceOf(v, inputs[i].map(([label]) => binding.get(label) ?? -1), node)
    );
    builder.emit(node.op, operands, node.attrs, node).forEach((out, i) => own.set(node.outputs[i], out));
  }
  return own;
}

/** Of how many slices of the vocabulary a rank has one. */
const slicesOf = (loss: Node | undefined, logits: Value): number =>
  loss?.attrs.whole === undefined ? 1 : num(loss.attrs.whole) / logits.shape.at(-1)!;

/** Clones one region chunk by chunk, so that the memory of one chunk serves all. */
function tileRegion(graph: Graph, value: Value, { rows, chunks }: Chunks): Graph {
  const region = regionOf(graph, value);
  if (typeof region === "string") throw new TypeError(`Cannot tile %${value.id}: ${region}`);
  const { before, after } = split(graph, region), loss = [...region.nodes].find(isLoss);
  const boxes = chunkBoxes(value.shape.slice(0, -1), rows * slicesOf(loss, value), chunks);
  if (boxes.length < 2) return graph;
  const builder = Builder.beside(graph), made = producers(graph);
  const needed = new Set([...after.flatMap((n) => n.inputs), ...graph.outputs.map((o) => o.value)]);
  const wanted = [...region.nodes].flatMap((n) => n.outputs).filter((v) => needed.has(v));
  const isSum = (v: Value) => !region.carried.get(v)!.some((d) => d >= 0 && d < value.shape.length - 1);
  const parts = new Map<Value, Value[]>(wanted.map((v) => [v, []]));
  for (const box of boxes) {
    const own = cloneChunk(builder, region, made, box);
    for (const [v, list] of parts) {
      const part = own.get(v)!;
      // What has no rows is a sum, folded as the chunks go by.
      if (isSum(v) && list.length > 0) list[0] = builder.emit("add", [list[0], part], {}, made.get(v)!)[0];
      else list.push(part);
    }
  }
  const results = new Map(wanted.map((v) => {
    const list = parts.get(v)!;
    return [v, isSum(v) ? list[0] : combine(builder, made.get(v)!, region.carried.get(v)!, boxes, list)];
  }));
  const replace = (v: Value) => results.get(v) ?? v;
  const renamed = after.map((n) => n.inputs.some((v) => results.has(v)) ? withInputs(n, n.inputs.map(replace)) : n);
  const nodes = [...before, ...builder.nodes, ...renamed];
  // A whole constant that only the region used is dead now.
  return removeDeadNodes(withNodes(graph, nodes, replace));
}

/** Puts the parts of a value together, from the innermost row dim out: concat along a dim that it has, sum over one it lacks. */
function combine(
  builder: Builder,
  node: Node,
  carried: readonly number[],
  boxes: readonly Box[],
  parts: Value[],
): Value {
  let pieces = boxes.map(({ starts }, i) => ({ starts, value: parts[i] }));
  for (let dim = boxes[0].starts.length - 1; dim >= 0; dim--) {
    const at = carried.indexOf(dim);
    const rows = Map.groupBy(pieces, (p) => String(p.starts.slice(0, dim)));
    pieces = [...rows.values()].map((group) => {
      const values = group.map((p) => p.value),
        join = (op: string, of: Value[], attrs = {}) => builder.emit(op, of, attrs, node)[0];
      const value = at < 0 || values.length === 1
        ? values.reduce((a, b) => join("add", [a, b]))
        : join("concat", values, { dim: at });
      return { starts: group[0].starts, value };
    });
  }
  return pieces[0].value;
}

/** Tiles a graph. Its meaning stays the same up to the order of sums over rows. A loss whose logits have to be whole is among the
 * graph's notices, with the reason.
 * @throws {TypeError} when one of `values` cannot be tiled: an op that does not work row by row, rows that are mixed, or a
 * result of all rows that comes back into the region. */
export function tile(graph: Graph, options: TileOptions): Graph {
  const { rows, chunks } = options;
  if (!(rows >= 1)) throw new RangeError(`Cannot tile by ${rows} rows: expected at least 1`);
  if (!(chunks >= 1)) throw new RangeError(`Cannot tile into ${chunks} chunks: expected at least 1`);
  const losses = options.values ? [] : lossesOf(graph), isWhole = (l: Loss) => l.refusal !== undefined;
  const values = options.values ?? new Set(losses.filter((l) => !isWhole(l)).map((l) => l.logits));
  const tiled = [...values].reduce((g, value) => tileRegion(g, value, { rows, chunks }), graph);
  const notices = losses.filter(isWhole)
    .filter(({ node, logits }) => numel(logits.shape.slice(0, -1)) > rows * slicesOf(node, logits))
    .map(({ node, refusal }) => `holds all logits of ${scopeText(node) || "its loss"} at once, since ${refusal}`);
  return notices.length === 0 ? tiled : { ...tiled, notices: [...tiled.notices, ...notices] };
}
