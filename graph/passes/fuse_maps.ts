/** Element-wise chains become `map` nodes: clusters grow along producers, consumers and shared operands, as long as no path
 * leaves a cluster and comes back. A value that a cluster can make again from what it loads anyway is made again.
 * @module */
import { Editor } from "../edit.ts";
import { type Graph, type Node, numel, producers, type Value } from "../ir.ts";
import { num } from "../op.ts";
import { elementwiseNames } from "../ops/elementwise.ts";
import { type MapProgram, type MapStep, programAttr } from "../ops/map.ts";

/** Longest program: its registers must stay in cache. */
const MAX_STEPS = 48;
/** How far apart in the graph two parts of a cluster may stand; bounds the search for paths, and the life of values. */
const MAX_DISTANCE = 64;

interface Cluster {
  readonly nodes: Set<Node>;
  first: number;
  last: number;
}

const isMappable = (node: Node | undefined): boolean =>
  node !== undefined && (elementwiseNames.has(node.op) || node.op === "cast");

/** Replaces every cluster of element-wise nodes by one `map`. */
export function fuseMaps(graph: Graph): Graph {
  const made = producers(graph), order = new Map(graph.nodes.map((n, i) => [n, i]));
  const clusterOf = new Map<Node, Cluster>();
  const readers = new Map<Value, Set<Cluster>>();
  for (const node of graph.nodes) {
    if (!isMappable(node)) continue;
    const at = order.get(node)!;
    let own: Cluster = { nodes: new Set([node]), first: at, last: at };
    clusterOf.set(node, own);
    const near = new Set<Cluster>();
    for (const v of node.inputs) {
      const source = made.get(v);
      if (source && clusterOf.has(source)) near.add(clusterOf.get(source)!);
      if (numel(v.shape) > 1) readers.get(v)?.forEach((c) => near.add(c));
    }
    for (const other of [...near].sort((a, b) => b.last - a.last)) {
      if (other !== own && canJoin(own, other, made, order)) own = join(own, other, clusterOf, readers);
    }
    for (const v of node.inputs) readers.set(v, (readers.get(v) ?? new Set()).add(own));
  }
  const edit = new Editor(graph);
  const outside = usesOutside(graph, clusterOf);
  for (const cluster of new Set(clusterOf.values())) {
    const nodes = [...cluster.nodes].sort((a, b) => order.get(a)! - order.get(b)!);
    emit(edit, nodes, made, clusterOf, outside);
  }
  return edit.finish();
}

const isGradient = (node: Node): boolean => node.scope.endsWith("'");

function canJoin(a: Cluster, b: Cluster, made: Map<Value, Node>, order: Map<Node, number>): boolean {
  const [x] = a.nodes, [y] = b.nodes;
  if (String(x.outputs[0].shape) !== String(y.outputs[0].shape) || x.outputs[0].dtype !== y.outputs[0].dtype) return false;
  // What only backward needs is made there, not kept since forward.
  if (isGradient(x) !== isGradient(y) || a.nodes.size + b.nodes.size > MAX_STEPS) return false;
  if (Math.max(a.last, b.last) - Math.min(a.first, b.first) > MAX_DISTANCE) return false;
  const all = new Set([...a.nodes, ...b.nodes]), first = Math.min(a.first, b.first);
  // A path that leaves the joined cluster and comes back would make it need itself.
  const stack = [...all].flatMap((n) => n.inputs.map((v) => made.get(v))).filter((n) => n && !all.has(n)) as Node[];
  const seen = new Set<Node>();
  while (stack.length > 0) {
    const node = stack.pop()!;
    if (seen.has(node) || order.get(node)! < first) continue;
    seen.add(node);
    for (const v of node.inputs) {
      const source = made.get(v);
      if (!source) continue;
      if (all.has(source)) return false;
      stack.push(source);
    }
  }
  return true;
}

function join(a: Cluster, b: Cluster, clusterOf: Map<Node, Cluster>, readers: Map<Value, Set<Cluster>>): Cluster {
  b.nodes.forEach((n) => {
    a.nodes.add(n);
    clusterOf.set(n, a);
    n.inputs.forEach((v) => readers.get(v)?.delete(b) && readers.get(v)!.add(a));
  });
  a.first = Math.min(a.first, b.first);
  a.last = Math.max(a.last, b.last);
  return a;
}

/** For each value of a cluster: who outside needs it, as nodes (`undefined` for a graph output). */
function usesOutside(graph: Graph, clusterOf: Map<Node, Cluster>): Map<Value, (Node | undefined)[]> {
  const uses = new Map<Value, (Node | undefined)[]>();
  const note = (v: Value, node: Node | undefined) => uses.set(v, [...uses.get(v) ?? [], node]);
  for (const node of graph.nodes) node.inputs.forEach((v) => note(v, node));
  for (const { value } of graph.outputs) note(value, undefined);
  const made = producers(graph);
  for (const [value, list] of uses) {
    const own = clusterOf.get(made.get(value)!);
    uses.set(value, list.filter((n) => n === undefined || own === undefined || clusterOf.get(n) !== own));
  }
  return uses;
}

function emit(
  edit: Editor,
  own: readonly Node[],
  made: Map<Value, Node>,
  clusterOf: Map<Node, Cluster>,
  outside: Map<Value, (Node | undefined)[]>,
): void {
  const loaded = new Set(own.flatMap((n) => n.inputs).filter((v) => !own.includes(made.get(v)!)));
  const [head] = own;
  const nodes = [...cloned(loaded, made, clusterOf), ...own];
  const inside = new Map(nodes.map((n) => [n.outputs[0], n]));
  const inputs: Value[] = [], constants: number[] = [];
  for (const v of nodes.flatMap((n) => n.inputs)) {
    if (inside.has(v)) continue;
    const source = made.get(v);
    if (source?.op === "constant") {
      if (!constants.includes(num(source.attrs.value))) constants.push(num(source.attrs.value));
    } else if (!inputs.includes(v)) inputs.push(v);
  }
  const registers = new Map<Value, number>(inputs.map((v, i) => [v, i]));
  for (const v of nodes.flatMap((n) => n.inputs)) {
    const source = made.get(v);
    if (source?.op === "constant") registers.set(v, inputs.length + constants.indexOf(num(source.attrs.value)));
  }
  const steps: MapStep[] = [];
  for (const node of nodes) {
    const args = node.inputs.map((v) => registers.get(v)!);
    if (node.op === "cast") registers.set(node.outputs[0], args[0]);
    else {
      registers.set(node.outputs[0], inputs.length + constants.length + steps.length);
      steps.push([node.op, ...args]);
    }
  }
  const isKept = (v: Value) => (outside.get(v) ?? []).some((n) => !remakes(n, v, clusterOf, made));
  const kept = own.map((n) => n.outputs[0]).filter(isKept);
  if (kept.length === 0) return;
  const program: MapProgram = { constants, steps, results: kept.map((v) => registers.get(v)!) };
  const { dtype, shape } = head.outputs[0];
  const map = edit.add(own.at(-1)!, "map", inputs, { program: programAttr(program), dtype, shape: [...shape] });
  kept.forEach((v, i) => edit.replace(v, map.outputs[i]));
}

/** Nodes that make a loaded value again from other loaded values: it then need not be kept since forward. */
function cloned(
  loaded: ReadonlySet<Value>,
  made: Map<Value, Node>,
  clusterOf: Map<Node, Cluster>,
): Node[] {
  return [...loaded].map((v) => made.get(v)).filter((n): n is Node => isRemade(n, loaded, made, clusterOf));
}

function isRemade(node: Node | undefined, loaded: ReadonlySet<Value>, made: Map<Value, Node>, clusterOf: Map<Node, Cluster>): boolean {
  if (!node || !clusterOf.has(node)) return false;
  return node.inputs.every((v) => made.get(v)?.op === "constant" || loaded.has(v) && !isRemade(made.get(v), loaded, made, clusterOf));
}

/** Does the cluster of `node` make `value` again instead of reading it? */
function remakes(
  node: Node | undefined,
  value: Value,
  clusterOf: Map<Node, Cluster>,
  made: Map<Value, Node>,
): boolean {
  const cluster = node && clusterOf.get(node);
  if (!cluster) return false;
  const loaded = new Set([...cluster.nodes].flatMap((n) => n.inputs).filter((v) => !cluster.nodes.has(made.get(v)!)));
  return isRemade(made.get(value), loaded, made, clusterOf);
}
