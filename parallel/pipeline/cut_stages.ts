/** Cuts a graph whose nodes have stages (`assignStages`, and behind it `autodiff`) into one for each stage. What one stage makes for
 * another goes through all between them: a stage puts it into a state of its slot, from which it is sent, and the next one reads it from
 * a state of its own. What the graph gives the host goes to the last stage so, and into a state of its slot.
 * @module */
import { Builder } from "../../graph/builder.ts";
import { stateUse } from "../../graph/facts.ts";
import { touchedStates } from "../../graph/edit.ts";
import { type DimRole, type Graph, type Lookup, type Node, producers, type State, type Value } from "../../graph/ir.ts";
import { dimRoles } from "../dim_roles.ts";

/** What passes between two stages that follow each other: the states that are read on one side and filled on the other, in one order. */
export interface Boundary {
  readonly sent: readonly State[];
  readonly received: readonly State[];
}

/** What a graph in stages gives the host, and where the last stage has it. */
export interface StageResult {
  readonly name: string;
  readonly state: State;
}

/** A graph in stages. */
export interface CutGraph {
  /** Of the graph. */
  readonly name: string;
  /** By stage. */
  readonly graphs: readonly Graph[];
  /** By stage but the last: what goes up to the next one. */
  readonly up: readonly Boundary[];
  /** By stage but the first: what goes down to the one before. */
  readonly down: readonly (Boundary | undefined)[];
  readonly results: readonly StageResult[];
}

/** What the graph of a stage is called. */
export function stageName(name: string, stage: number): string {
  return `${name}.${stage}`;
}

/** Cuts a graph.
 * @param count number of stages. */
export function cutStages(graph: Graph, count: number): CutGraph {
  const made = producers(graph), roles = dimRoles(graph);
  const { up, down } = crossings(graph, count, made);
  const boundary = (values: readonly Value[], from: number, to: number): Boundary => {
    const what = from < to ? "activation" : "gradient";
    const state = (stage: number, way: "in" | "out") => (v: Value, i: number): State => ({
      name: `${stageName(graph.name, stage)}/${what}_${way}${values.length > 1 ? `.${i}` : ""}`,
      kind: "activation",
      of: stageName(graph.name, stage),
      dtype: v.dtype,
      shape: v.shape,
      roles: roles.get(v) as DimRole[],
    });
    return { sent: values.map(state(from, "out")), received: values.map(state(to, "in")) };
  };
  const ups = up.map((values, s) => boundary(values, s, s + 1));
  const downs = down.map((values, s) => s === 0 ? undefined : boundary(values, s, s - 1));
  const last = stageName(graph.name, count - 1);
  const results = graph.outputs.map(({ name, value }): { readonly value: Value } & StageResult => {
    const { dtype, shape } = value, own = { kind: "activation", of: last, dtype, shape } as const;
    return { name, value, state: { ...own, name: `${last}/result_${name}`, roles: roles.get(value) as DimRole[] } };
  });
  const graphs = Array.from({ length: count }, (_, stage) => {
    const received = new Map<Value, State>(), sent = new Map<Value, State[]>();
    const receive = (values: readonly Value[], { received: states }: Boundary) =>
      values.forEach((v, i) => received.set(v, states[i]));
    const send = (values: readonly Value[], { sent: states }: Boundary) =>
      values.forEach((v, i) => sent.set(v, [...sent.get(v) ?? [], states[i]]));
    if (stage > 0) {
      receive(up[stage - 1], ups[stage - 1]);
      send(down[stage], downs[stage]!);
    }
    if (stage < count - 1) {
      receive(down[stage + 1], downs[stage + 1]!);
      send(up[stage], ups[stage]);
    }
    return new StageGraph(graph, stage, made).make(received, sent, stage === count - 1 ? results : []);
  });
  return { name: graph.name, graphs, up: ups, down: downs, results };
}

/** By stage: the values that go from it to the next one, and to the one before. */
function crossings(graph: Graph, count: number, made: Lookup<Node>): { up: Value[][]; down: Value[][] } {
  const up = Array.from({ length: count }, () => new Set<Value>()), down = up.map(() => new Set<Value>());
  const use = (value: Value, stage: number): void => {
    const from = made.get(value)?.stage;
    if (from === undefined) return;
    for (let s = from; s < stage; s++) up[s].add(value);
    for (let s = from; s > stage; s--) down[s].add(value);
  };
  for (const node of graph.nodes) {
    if (node.stage !== undefined) node.inputs.forEach((v) => use(v, node.stage!));
  }
  for (const { value } of graph.outputs) use(value, count - 1);
  return { up: up.slice(0, -1).map((s) => [...s]), down: down.map((s) => [...s]) };
}

/** Builds the graph of one stage. */
class StageGraph {
  readonly #builder: Builder;
  readonly #now = new Map<Value, Value>();
  readonly #states: ReadonlyMap<string, State>;
  #received: ReadonlyMap<Value, State> = new Map();

  constructor(readonly graph: Graph, readonly stage: number, readonly made: Lookup<Node>) {
    this.#builder = new Builder(stageName(graph.name, stage), [], graph.level);
    this.#builder.slot = this.#builder.name;
    this.#states = new Map(graph.states.map((s) => [s.name, s]));
  }

  /** @param received states that hold what other stages make. @param sent states into which a value is put for them.
   * @param results what is put into a state for the host. */
  make(
    received: ReadonlyMap<Value, State>,
    sent: ReadonlyMap<Value, readonly State[]>,
    results: readonly ({ readonly value: Value } & StageResult)[],
  ): Graph {
    const builder = this.#builder, { graph, stage } = this;
    // All stages have all inputs, so that their host buffers are alike.
    for (const i of graph.inputs) this.#now.set(i.value, builder.input(i.name, i.value, i.roles, i.counts));
    for (const state of [...received.values(), ...[...sent.values()].flat()]) builder.declare(state);
    const send = (value: Value, node: Pick<Node, "phase">) => {
      builder.origin = { scope: "", phase: node.phase };
      for (const { name } of sent.get(value) ?? []) builder.assign(name, this.#now.get(value)!);
    };
    this.#received = received;
    const passOn = (isGradient: boolean) => {
      for (const value of received.keys()) {
        const { phase } = this.made.get(value)!;
        if (!sent.has(value) || (phase !== "forward") !== isGradient) continue;
        this.#current(value);
        send(value, { phase });
      }
    };
    passOn(false);
    for (const node of graph.nodes) {
      if (node.stage !== stage) continue;
      this.#emit(node);
      node.outputs.forEach((v) => send(v, node));
    }
    passOn(true);
    for (const { value, state } of results) {
      const now = this.#current(value);
      builder.origin = { scope: "", phase: "forward" };
      builder.declare(state);
      builder.assign(state.name, now);
    }
    for (const { name, value } of graph.activations) {
      const now = this.made.get(value)?.stage === stage ? this.#now.get(value) : undefined;
      if (now) builder.activations.push({ name, value: now });
    }
    return builder.finish();
  }

  #emit(node: Node): void {
    const inputs = node.inputs.map((v) => this.#current(v)), { scope, phase, block } = node;
    for (const name of touchedStates(node)) this.#builder.declare(this.#states.get(name)!);
    const stored = stateUse(node) === "adds" ? this.#states.get(touchedStates(node)[0])?.of : undefined;
    if (stored !== undefined) this.#builder.declare(this.#states.get(stored)!);
    this.#builder.emit(node.op, inputs, node.attrs, { scope, phase, block })
      .forEach((v, i) => this.#now.set(node.outputs[i], v));
  }

  /** A value as this stage has it: made here, received, given by the host, or a constant, which each makes itself. */
  #current(value: Value): Value {
    const known = this.#now.get(value);
    if (known) return known;
    const node = this.made.get(value), received = this.#received.get(value);
    if (received) {
      const { origin } = this.#builder;
      this.#builder.origin = { scope: "", phase: node!.phase };
      this.#now.set(value, this.#builder.read(received.name));
      this.#builder.origin = origin;
    } else {
      if (node!.stage !== undefined) throw new Error(`Stage ${this.stage} needs %${value.id} of stage ${node!.stage}`);
      this.#emit(node!);
    }
    return this.#now.get(value)!;
  }
}

/** Of the stages of one rank: a gradient that several of them have a part of is summed by each for itself, as each begins and ends its sums
 * in its own time; the update adds them (`holdStates`). The last stage has the sum of the gradient's own name. */
export function separateSums(graphs: readonly Graph[]): Graph[] {
  const taken = new Set<string>();
  return graphs.toReversed().map((graph) => {
    const sums = graph.states.filter((s) => s.kind === "gradient");
    const now = new Map(sums.filter((s) => taken.has(s.name)).map((s) => [s.name, `${s.name} of ${graph.name}`]));
    sums.forEach((s) => taken.add(s.name));
    const begun = new Set<string>();
    const nodes = graph.nodes.map((node) => {
      if (stateUse(node) !== "adds") return node;
      const [name] = touchedStates(node), own = now.get(name) ?? name, begin = !begun.has(name);
      begun.add(name);
      if (own === name && begin === node.attrs.begin) return node;
      return { ...node, attrs: { ...node.attrs, states: [own], begin } };
    });
    return { ...graph, nodes, states: graph.states.map((s) => ({ ...s, name: now.get(s.name) ?? s.name })) };
  }).toReversed();
}
