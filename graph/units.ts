/** What ranks exchange for the sake of parameters alone: gathers of parameters that are stored in shards, maxima that these are scaled by,
 * reductions of their gradients, and of sums of these over microbatches. A _unit_ is what travels together: the parameters of one block, or those between two blocks (an embedding; a last norm
 * with the output layer). No name of a model is known here: a gather is known by the state that it comes from, a reduction by the
 * one that it leads to.
 * @module */
import { opOf } from "./builder.ts";
import { hasEffect, touchedStates } from "./edit.ts";
import { fillOf, isElementwise, isGather, isLink, isReduction, stateUse } from "./facts.ts";
import { consumers, type Graph, type Node, producers, type Value } from "./ir.ts";

/** A collective for parameters. */
export interface Transfer {
  readonly node: Node;
  readonly kind: "gather" | "maximum" | "reduction" | "sum";
  /** The same for all that belongs to a unit; what backward gathers, again or for itself, is a unit of its own. */
  readonly unit: string;
  /** The block of the parameter. */
  readonly block?: string;
  /** The block, or the module, of the parameter: for people. */
  readonly module: string;
  /** How many others come before it on the way between parameter and use: one for each axis, for instance. */
  readonly depth: number;
  /** Nodes that only lead from the parameter to this gather, or from this reduction to the gradient sum: casts, views, and the
   * accumulation. Those that read and replace a sum. */
  readonly links: readonly Node[];
}

/** All transfers of a graph, in its order. */
export function transfersOf(graph: Graph): Transfer[] {
  if (!graph.nodes.some((n) => opOf(n.op).together)) return [];
  const found = new Map([...fromStates(graph), ...toSums(graph), ...ofSums(graph)].map((t) => [t.node, t]));
  const states = new Map(graph.states.map((s) => [s.name, s]));
  /** Blocks so far: between the same two of them, what lies outside is one unit. */
  const blocks = new Map<string, Set<string>>();
  return graph.nodes.flatMap((node): Transfer[] => {
    const transfer = found.get(node);
    if (!transfer) return [];
    const { state, kind, depth, links } = transfer, { block, scope = "" } = states.get(state)!;
    const isEarly = kind === "gather" || kind === "maximum";
    const side = !isEarly || node.phase === "forward"
        ? kind
        : `${kind} ${node.phase === "remade" ? "again" : node.phase}`,
      seen = blocks.get(side) ?? new Set();
    if (block !== undefined) blocks.set(side, seen.add(block));
    const unit = `${side} ${block ?? `outside ${seen.size}`}`;
    return [{ node, kind, unit, block, module: block ?? scope, depth, links }];
  });
}

interface Found extends Omit<Transfer, "unit" | "block" | "module"> {
  readonly state: string;
}

/** Where a value comes from. */
interface Origin extends Omit<Found, "node" | "kind"> {
  /** Does it follow from the parameter's maximum alone? */
  readonly isScale: boolean;
}

/** Gathers of what is read from parameters and made of each alone since: written in another way, or scaled by its own maximum; and what
 * finds these maxima among ranks. In a graph that changes no gradient sum, also reductions of these sums. */
function fromStates(graph: Graph): Found[] {
  const kinds = new Map(graph.states.map((s) => [s.name, s.kind])), found: Found[] = [];
  const isGradient = (node: Node) => touchedStates(node).some((s) => kinds.get(s) === "gradient");
  const isSummed = graph.nodes.some((n) => hasEffect(n) && isGradient(n));
  const constants = new Set<Value>(), origins = new Map<Value, Origin>();
  for (const node of graph.nodes) {
    const [state] = touchedStates(node), kind = stateUse(node) === "reads" ? kinds.get(state) : undefined;
    if (fillOf(node) !== undefined) constants.add(node.outputs[0]);
    if (kind === "parameter" || kind === "gradient" && !isSummed) {
      origins.set(node.outputs[0], { state, depth: 0, links: [], isScale: false });
    }
    const all = node.inputs.filter((v) => !constants.has(v)), known = all.flatMap((v) => origins.get(v) ?? []);
    if (known.length === 0 || known.length < all.length) continue;
    const from = known[0].state, isParameter = kinds.get(from) === "parameter";
    const depth = Math.max(...known.map((o) => o.depth)), links = [...new Set(known.flatMap((o) => o.links))];
    const isMaximum = isParameter && isReduction(node) && node.attrs.by === "max";
    const isTransfer = isParameter ? isGather(node) : isReduction(node);
    // What a parameter is scaled by, and what is scaled.
    const isOwn = isParameter && known.every((o) => o.state === from) &&
      (isMax(node) || isElementwise(node.op) && known.some((o) => o.isScale));
    if (!isTransfer && !isLink(node) && !isOwn && !isMaximum) continue;
    if (node.attrs.last) continue;
    if (isMaximum) found.push({ node, kind: "maximum", state: from, depth, links: [] });
    else if (isTransfer && isParameter) found.push({ node, kind: "gather", state: from, depth, links });
    else if (isTransfer) found.push({ node, kind: "reduction", state: from, depth, links: [] });
    // Few numbers are kept, and not made again for what is gathered again.
    const isEnd = isTransfer || isMaximum || isMax(node), isScale = isMax(node) || known.every((o) => o.isScale);
    const next = { depth: depth + Number(isTransfer), links: isEnd ? [] : [...links, node], isScale };
    node.outputs.forEach((v) => origins.set(v, { state: from, ...next }));
  }
  return found;
}

/** Does a node take the largest of what it reads? */
const isMax = ({ op, attrs }: Node): boolean => opOf(op).split?.by?.(attrs) === "max";

/** Reductions of what only goes on into gradient sums. */
function toSums(graph: Graph): Found[] {
  const kinds = new Map(graph.states.map((s) => [s.name, s.kind])), uses = consumers(graph);
  const results = new Set(graph.outputs.map((o) => o.value));
  /** The sum that a node leads to, with the links on the way. */
  const ends = new Map<Node, { readonly state: string; readonly links: readonly Node[] }>();
  for (const node of graph.nodes.toReversed()) {
    const [state] = touchedStates(node);
    if (stateUse(node) === "adds" && kinds.get(state) === "gradient") ends.set(node, { state, links: [node] });
    if (!isLink(node) && !opOf(node.op).adds && !isReduction(node)) continue;
    const next = node.outputs.flatMap((v) => uses.get(v) ?? []), end = ends.get(next[0]);
    if (!end || !next.every((n) => ends.has(n)) || node.outputs.some((v) => results.has(v))) continue;
    const links = [...new Set(next.flatMap((n) => isReduction(n) ? [] : ends.get(n)!.links))];
    ends.set(node, { state: end.state, links: isReduction(node) ? links : [node, ...links] });
  }
  const depths = new Map<Value, number>();
  return graph.nodes.flatMap((node): Found[] => {
    const end = ends.get(node);
    if (!end) return [];
    const depth = Math.max(0, ...node.inputs.map((v) => depths.get(v) ?? 0));
    node.outputs.forEach((v) => depths.set(v, depth + Number(isReduction(node))));
    return isReduction(node) ? [{ node, kind: "reduction", depth, ...end }] : [];
  });
}

/** Reductions of sums in their own memory, in the last microbatch. */
function ofSums(graph: Graph): Found[] {
  const made = producers(graph), uses = consumers(graph);
  return graph.nodes.filter((n) => n.attrs.last).map((node): Found => {
    const reads = node.inputs.map((v) => made.get(v)!), [state] = touchedStates(reads[0]);
    return { node, kind: "sum", state, depth: 0, links: [...reads, ...node.outputs.flatMap((v) => uses.get(v) ?? [])] };
  });
}
