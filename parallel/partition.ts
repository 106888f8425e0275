/** Pass `partition`: from a graph on global tensors to the one graph that every rank of a mesh runs on its parts. Axis by axis, in
 * topological order over the whole graph, each node is given a strategy by the rules below; there is no cost model.
 *
 * 1. A sharded dim stays sharded through an op that keeps it; one that is summed away makes the result partial; an operand that the op
 *    must see whole is gathered.
 * 2. Parameters are pinned to their layout of use and activations move: (a) the gradient of a parameter that is used in shards takes
 *    the strategy whose result is in that layout; (b) else an op with a sharded parameter takes the parameter's strategy; (c) else
 *    operands that are sharded must agree, on a cut that the results keep before one that leaves summands, and partial ones are
 *    brought to them; (d) else an op that is linear in its partial operands may stay partial.
 * 3. A partial value of more than one use is resolved where it is made, to the plan's residual layout where it has one for so many
 *    dims and they can be cut so, else it becomes whole; with one use it may travel through linear ops. From whole to partial is
 *    free: the first rank keeps the value. So a sum over all parameters, some of them sharded, is one exchange.
 * 4. The gradient of a value takes that value's layout; the gradient of a partial value is whole.
 * 5. A conversion is made once for each value and target: `localize.ts`. It sinks below casts that shrink what it moves, with what is
 *    element-wise in front of them, and what is rounded to bf16 where it arrives travels as bf16.
 * @module */
import { Builder, opOf, withInputs } from "../graph/builder.ts";
import { touchedStates } from "../graph/edit.ts";
import { isElementwise, stateUse } from "../graph/facts.ts";
import {
  consumers,
  type DimRole,
  dtypeBytes,
  type Graph,
  type Lookup,
  type Node,
  producers,
  type State,
  type Value,
  withNodes,
} from "../graph/ir.ts";
import {
  type Layout,
  LayoutError,
  partial,
  type Placement,
  placementOn,
  replicate,
  samePlacement,
  shard,
} from "../graph/layout.ts";
import { ownersOf } from "../graph/owners.ts";
import { scopeText } from "../graph/print.ts";
import { dimRoles } from "./dim_roles.ts";
import { localize } from "./localize.ts";
import type { Mesh } from "./mesh.ts";
import type { Layouts } from "./plan.ts";
import { cutAlong, type Decisions, type Labels, labelsOf, onSummands, type Strategy, whole } from "./strategy.ts";

/** The graph that every rank runs: shapes are those of a rank's parts, and what depends on the rank is said by axes, for `graphOfRank`
 * to resolve. Pipeline stages (`pp`) are none of its business.
 * @throws {LayoutError} when an input, a state or a named activation cannot be cut as the plan says. */
export function partition(graph: Graph, mesh: Mesh, layouts: Layouts): Graph {
  const single = separateReads(graph), rules = new Rules(single, mesh, layouts);
  for (const axis of rules.axes) rules.decide(axis);
  return { ...localize(single, mesh, layouts, rules), notices: [...graph.notices, ...rules.notices] };
}

/** Reads of several states at once become reads of one each: their parts do not lie one after another. */
function separateReads(graph: Graph): Graph {
  const several = (n: Node) => stateUse(n) === "reads" && touchedStates(n).length > 1;
  if (!graph.nodes.some(several)) return graph;
  const builder = Builder.beside(graph), nodes: Node[] = [], now = new Map<Value, Value>();
  const current = (v: Value): Value => now.get(v) ?? v;
  for (const node of graph.nodes) {
    if (several(node)) {
      const from = builder.nodes.length;
      builder.origin = node;
      const parts = touchedStates(node).map((name) => builder.read(name));
      now.set(node.outputs[0], builder.emit("concat", parts, { dim: 0 })[0]);
      nodes.push(...builder.nodes.slice(from));
    } else nodes.push(withInputs(node, node.inputs.map(current)));
  }
  return withNodes(graph, nodes, current);
}

class Rules implements Decisions {
  readonly axes: readonly string[];
  /** Nodes that every rank does whole for want of a rule, in words. */
  readonly notices = new Set<string>();
  readonly #strategies = new Map<Node, Map<string, Strategy>>();
  readonly #placements = new Map<Value, Map<string, Placement>>();
  readonly #states: ReadonlyMap<string, State>;
  readonly #made: Lookup<Node>;
  /** Number of uses of each value, among them those as a result of the graph. */
  readonly #uses = new Map<Value, number>();
  /** Values of parameters, as they are read and in other forms, with the layout of use. */
  readonly #parameters: ReadonlyMap<Value, Layout>;
  /** What works on parameters as they are stored. */
  readonly #storedWork: ReadonlySet<Node>;
  /** What is added into the gradient sum of a parameter, and the layout of the parameter's use. */
  readonly #gradients: ReadonlyMap<Value, Layout>;
  /** Results of modules that the plan names. */
  readonly #activations: ReadonlyMap<Value, Layout>;
  /** What the dims of values count. */
  readonly #roles: ReadonlyMap<Value, readonly DimRole[]>;

  constructor(readonly graph: Graph, readonly mesh: Mesh, readonly layouts: Layouts) {
    this.axes = Object.keys(mesh.factors).filter((axis) => axis !== "pp" && mesh.factors[axis] > 1);
    this.#states = new Map(graph.states.map((s) => [s.name, s]));
    this.#made = producers(graph);
    for (const node of graph.nodes) {
      for (const value of new Set(node.inputs)) this.#uses.set(value, (this.#uses.get(value) ?? 0) + 1);
    }
    for (const { value } of graph.outputs) this.#uses.set(value, (this.#uses.get(value) ?? 0) + 1);
    this.#parameters = this.#parameterValues();
    this.#storedWork = this.#workOnStored();
    this.#gradients = this.#parameterGradients();
    this.#activations = this.#namedActivations();
    this.#roles = dimRoles(graph);
  }

  strategy(node: Node, axis: string): Strategy {
    return this.#strategies.get(node)!.get(axis)!;
  }

  placement(value: Value, axis: string): Placement {
    return this.#placements.get(value)!.get(axis)!;
  }

  /** Decides all nodes on one axis; earlier axes stay as they are. */
  decide(axis: string): void {
    const place = (value: Value, placement: Placement) => {
      if (!this.#placements.has(value)) this.#placements.set(value, new Map());
      this.#placements.get(value)!.set(axis, placement);
    };
    for (const input of this.graph.inputs) place(input.value, placementOn(this.layouts.input(input), axis));
    for (const node of this.graph.nodes) {
      const strategy = this.#choose(node, axis);
      if (!this.#strategies.has(node)) this.#strategies.set(node, new Map());
      this.#strategies.get(node)!.set(axis, strategy);
      node.outputs.forEach((v, i) => place(v, this.#resolve(node, i, strategy.outputs[i], axis)));
    }
  }

  /** The strategy of a node on an axis: rules 1 and 2. */
  #choose(node: Node, axis: string): Strategy {
    const [state] = touchedStates(node);
    if (state !== undefined) {
      // Rule 4 for parameters: a gradient is added up in the layout of its sum.
      const stored = placementOn(this.layouts.state(this.#states.get(state)!), axis);
      return { inputs: node.inputs.map(() => stored), outputs: node.outputs.map(() => stored) };
    }
    const operands = node.inputs.map((v) => this.#seenBy(node, v, axis)), labels = labelsOf(node);
    if (opOf(node.op).split?.additive) return this.#sumOfAll(node, operands, axis);
    if (!labels) {
      if (!opOf(node.op).split && operands.some((p) => p.kind !== "replicate")) {
        this.notices.add(
          `does "${node.op}" of ${
            scopeText(node) || "no module"
          } whole on every rank, since its record has no split: ` +
            `what it reads is gathered`,
        );
      }
      return whole(node);
    }
    const cut = (terms: Labels["inputs"], at: number, placement: Placement) => {
      if (placement.kind !== "shard") return;
      // An op that would make something of padding may still have even slices.
      const label = terms[at][placement.dim], padded = placement.padded && opOf(node.op).split!.padded === true;
      return this.#canCut(node, labels, label, axis, padded) ? cutAlong(node, labels, label, padded) : undefined;
    };
    // Rule 2a.
    for (const [i, value] of node.outputs.entries()) {
      const used = this.#gradients.get(value), strategy = used && cut(labels.outputs, i, placementOn(used, axis));
      if (strategy) return strategy;
    }
    // Rule 2b, then 2c, and through the labels rule 1: of the cuts that the op can keep, the first decides.
    const cuts = operands.map((p, i) => cut(labels.inputs, i, p));
    const pinned = cuts.find((_, i) => cuts[i] && this.#parameters.has(node.inputs[i]));
    const kept = cuts.find((c) => c?.outputs.every((p) => p.kind !== "partial"));
    const decided = pinned ?? kept ?? cuts.find((c) => c);
    if (decided) return decided;
    // Rule 2d.
    const summands = operands.map((p) => samePlacement(p, partial()));
    if (summands.some((p) => p)) {
      const strategy = onSummands(node, summands);
      if (strategy && this.#staysPartial(node, strategy, summands)) return strategy;
    }
    return whole(node);
  }

  /** Where an operand is for the rules: a parameter where it is used, all else where it was made. */
  #seenBy(node: Node, value: Value, axis: string): Placement {
    const used = this.#parameters.get(value);
    // Rule 5: a parameter is converted behind the casts that shrink it.
    return used && !this.#storedWork.has(node) ? placementOn(used, axis) : this.placement(value, axis);
  }

  #canCut(node: Node, labels: Labels, label: string | undefined, axis: string, padded: boolean): label is string {
    if (label === undefined) return false;
    if (padded) return true;
    const same = (a: string) => this.strategy(node, a).label === label && !this.strategy(node, a).padded;
    return labels.sizes.get(label)! % this.#pieces(same, axis) === 0;
  }

  /** Number of pieces that an axis makes together with the axes before it that do the same. */
  #pieces(same: (axis: string) => boolean, axis: string): number {
    const earlier = this.axes.slice(0, this.axes.indexOf(axis)).filter(same);
    return [...earlier, axis].reduce((n, a) => n * this.mesh.factors[a], 1);
  }

  /** Does staying partial save anything? Not where the result is resolved at once and a whole operand would have to become summands. */
  #staysPartial(node: Node, strategy: Strategy, summands: readonly boolean[]): boolean {
    const mixed = strategy.inputs.some((p, i) => p.kind === "partial" && !summands[i]);
    return !mixed || this.#uses.get(node.outputs[0])! <= 1;
  }

  /** One sum over all operands: each stays in its shards, and what is whole counts on one rank only (rule 3). */
  #sumOfAll(node: Node, operands: readonly Placement[], axis: string): Strategy {
    if (operands.every((p) => p.kind === "replicate")) return whole(node);
    const inputs = operands.map((placement, i) => {
      if (placement.kind !== "partial") return placement.kind === "shard" ? placement : partial();
      // The square of a sum is not the sum of squares.
      return this.#fits(node.inputs[i], shard(0), axis) ? shard(0) : replicate;
    });
    return inputs.some((p) => p.kind === "replicate") ? whole(node) : { inputs, outputs: [partial()] };
  }

  /** Where a result is from then on: rules 3 and 4, and what the plan says of named activations. */
  #resolve(node: Node, index: number, made: Placement, axis: string): Placement {
    const value = node.outputs[index], named = this.#activations.get(value)?.get(axis);
    if (named) {
      if (!this.#fits(value, named, axis)) {
        throw new LayoutError(
          `Cannot cut the result of "${node.scope}", [${value.shape}], over ${
            this.mesh.named([axis])
          } as the plan says`,
        );
      }
      return named;
    }
    // On an earlier axis it may have been resolved to shards that leave no room for these.
    if (made.kind === "shard") return made.padded || this.#fits(value, made, axis) ? made : replicate;
    if (made.kind === "replicate") return made;
    // Rule 4.
    const gradient = opOf(node.op).split?.gradients?.find(([output]) => output === index);
    if (gradient) {
      const of = this.placement(node.inputs[gradient[1]], axis);
      return of.kind === "shard" ? of : replicate;
    }
    // Rule 3.
    if ((this.#uses.get(value) ?? 0) <= 1) return made;
    const residual = placementOn(this.layouts.residual(this.#roles.get(value)!), axis);
    return this.#fits(value, residual, axis) ? residual : replicate;
  }

  /** Can the value be cut like this, on top of how earlier axes cut it? */
  #fits(value: Value, placement: Placement, axis: string): boolean {
    if (placement.kind !== "shard") return true;
    const same = (a: string) => samePlacement(this.placement(value, a), placement);
    return (value.shape[placement.dim] ?? 1) % this.#pieces(same, axis) === 0;
  }

  /** Parameters that are read, casts of them that shrink, and what leads from one to such a cast, element by element and of the
   * parameter alone. */
  #parameterValues(): Map<Value, Layout> {
    const forms = new Map<Value, Layout>(), owners = ownersOf(this.graph), found = new Map<Value, Layout>();
    const formOf = (node: Node) => node.inputs.find((v) => forms.has(v));
    for (const node of this.graph.nodes) {
      const [y] = node.outputs, owner = y && owners.get(y);
      if (owner === undefined || stateUse(node) !== "reads" && !(isElementwise(node.op) && formOf(node))) continue;
      forms.set(y, this.layouts.used(this.#states.get(owner)!));
      if (stateUse(node) === "reads") found.set(y, forms.get(y)!);
    }
    for (const node of this.graph.nodes.toReversed()) {
      const x = formOf(node), [y] = node.outputs;
      if (!x || !forms.has(y)) continue;
      if (found.has(y) || dtypeBytes[y.dtype] < dtypeBytes[x.dtype]) [x, y].forEach((v) => found.set(v, forms.get(v)!));
    }
    return found;
  }

  /** Rule 5: casts of parameters that shrink them for the first time, what leads to nothing else, and maxima for these. */
  #workOnStored(): Set<Node> {
    const found = new Set<Node>(), uses = consumers(this.graph), shrunk = new Set<Value>();
    const ownOf = (node: Node) => node.inputs.filter((v) => this.#parameters.has(v));
    for (const node of this.graph.nodes) {
      const [x] = ownOf(node), [y] = node.outputs;
      if (!x || !this.#parameters.has(y)) continue;
      if (shrunk.has(x)) shrunk.add(y);
      else if (dtypeBytes[y.dtype] < dtypeBytes[x.dtype]) {
        shrunk.add(y);
        found.add(node);
      }
    }
    const isRead = (v: Value) => this.graph.outputs.some((o) => o.value === v);
    for (const node of this.graph.nodes.toReversed()) {
      const [x] = ownOf(node), [y] = node.outputs, all = y && uses.get(y);
      if (!x || shrunk.has(x) || !this.#parameters.has(y) || !all || isRead(y)) continue;
      if (all.every((n) => found.has(n) || isMaximum(n)) && all.some((n) => found.has(n))) found.add(node);
    }
    for (const node of this.graph.nodes) {
      const isBeside = (v: Value) => !shrunk.has(v) && uses.get(v)!.some((n) => found.has(n) && !isMaximum(n));
      if (isMaximum(node) && ownOf(node).some(isBeside)) found.add(node);
    }
    return found;
  }

  /** Values that end in a gradient sum, through sums and casts. */
  #parameterGradients(): Map<Value, Layout> {
    const found = new Map<Value, Layout>();
    const visit = (value: Value, used: Layout): void => {
      if (found.get(value) === used) return;
      found.set(value, used);
      const node = this.#made.get(value);
      const { adds, converts } = node ? opOf(node.op) : {};
      if (adds || converts) node!.inputs.forEach((v) => visit(v, used));
    };
    for (const node of this.graph.nodes) {
      const state = stateUse(node) === "adds" ? this.#states.get(touchedStates(node)[0])! : undefined;
      const parameter = state?.kind === "gradient" ? this.#states.get(state.of ?? "") : undefined;
      if (parameter) visit(node.inputs[0], this.layouts.used(parameter));
    }
    return found;
  }

  /** What modules give, with the placements that the plan has for it. */
  #namedActivations(): Map<Value, Layout> {
    const found = new Map<Value, Layout>();
    for (const { name, value } of this.graph.activations) {
      found.set(value, new Map([...found.get(value) ?? [], ...this.layouts.activation(name)]));
    }
    return found;
  }
}

/** Does a node take the largest of what it reads? */
function isMaximum({ op, attrs }: Node): boolean {
  return opOf(op).split?.by?.(attrs) === "max";
}
