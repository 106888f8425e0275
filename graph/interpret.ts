/** The meaning of a graph: runs any graph in f64 with the ops' reference meanings, and the graphs of many ranks in lockstep; what is
 * stored as bf16 or float8 is rounded to it. Slow, and right: passes and kernels are tested against it.
 * @module */
import { type Arr, arr, roundBf16, roundedTo } from "./array.ts";
import { opOf } from "./builder.ts";
import { stateUse } from "./facts.ts";
import { type Graph, isStored, type Node, numel, typeText } from "./ir.ts";
import { nums } from "./op.ts";
import { nodeText } from "./print.ts";

/** State memory of an interpreter: name to array. Missing states are zeros. */
export type Memory = Map<string, Arr>;

/** What a run is given. */
export interface RunOptions {
  /** Arrays (or numbers) for the graph's inputs, by name. */
  readonly inputs?: Readonly<Record<string, Arr | ArrayLike<number>>>;
  /** State before the run; changed in place. */
  readonly memory?: Memory;
  /** Is this the first microbatch of the step? Then `accumulate` with `begin` overwrites. Default true. */
  readonly first?: boolean;
  /** Is it the last one? Else collectives with `last` leave everything as it is. Default true. */
  readonly last?: boolean;
  /** Called with each node and what it made: how a value is looked at. */
  readonly trace?: (node: Node, outputs: readonly Arr[]) => void;
}

/** Runs a graph and returns its outputs by name.
 * @throws {TypeError} when an input is missing or has the wrong number of elements, or when the graph is one of many ranks'. */
export function interpret(graph: Graph, options: RunOptions = {}): Record<string, Arr> {
  const step = execute(graph, options).next();
  if (step.done) return step.value;
  throw new TypeError(
    `Cannot run graph "${graph.name}" alone: ${nodeText(step.value.node)} needs other ranks; use interpretRanks`,
  );
}

/** Runs the graphs of all ranks together, and returns the outputs of each: at a collective every rank waits for the others of its group.
 * @param graphs one for each rank, with the groups of its collectives (`graphOfRank`). @param options what each is given.
 * @throws {Error} when ranks wait for each other at different collectives: all of a group run the same ones in the same order. */
export function interpretRanks(graphs: readonly Graph[], options: readonly RunOptions[]): Record<string, Arr>[] {
  const runs = graphs.map((graph, rank) => execute(graph, options[rank]));
  let steps = runs.map((run) => run.next());
  for (;;) {
    if (steps.every((step) => step.done)) return steps.map((step) => step.value as Record<string, Arr>);
    const places = steps.map((step) => step.done ? undefined : step.value);
    const meets = places.map((place) => place !== undefined && isMeeting(place, places));
    if (!meets.includes(true)) throw new Error(`Cannot go on: ${strayText(places)}`);
    steps = places.map((place, rank) => {
      if (!meets[rank]) return steps[rank];
      const { op, attrs } = place!.node, group = nums(attrs.group);
      const operands = group.map((r) => places[r]!.operands);
      return runs[rank].next(opOf(op).together!(operands, attrs, group.indexOf(rank)));
    });
  }
}

/** What ranks of a group must be at alike. Where each gives something else, an attribute lists what all give. */
function meetingText({ node: { op, inputs, attrs } }: Meeting): string {
  const what = attrs.types !== undefined
    ? JSON.stringify([attrs.from, attrs.to, attrs.types])
    : inputs.map(typeText).join(", ");
  return `${op} of ${what} over ${attrs.group}`;
}

/** Have all of its group come to where a rank is? */
function isMeeting(own: Meeting, places: readonly (Meeting | undefined)[]): boolean {
  const text = meetingText(own);
  return nums(own.node.attrs.group).every((rank) => places[rank] !== undefined && meetingText(places[rank]) === text);
}

/** Two ranks that wait for each other, or one for another that has ended. */
function strayText(places: readonly (Meeting | undefined)[]): string {
  const texts = places.map((place) => place ? meetingText(place) : "the end");
  const first = places.findIndex((place) => place !== undefined);
  const other = nums(places[first]!.node.attrs.group).find((rank) => texts[rank] !== texts[first]);
  return `rank ${first} is at ${texts[first]}, rank ${other} at ${texts[other!]}`;
}

/** A rank at a collective. */
interface Meeting {
  readonly node: Node;
  readonly operands: readonly Arr[];
}

/** Runs a graph; at each collective it gives its operands and is given the results. */
function* execute(graph: Graph, options: RunOptions): Generator<Meeting, Record<string, Arr>, readonly Arr[]> {
  const { inputs = {}, memory = new Map(), first = true, last = true, trace } = options;
  const values = new Map<number, Arr>();
  for (const { name, value } of graph.inputs) {
    const given = inputs[name];
    if (given === undefined) throw new TypeError(`Cannot run graph "${graph.name}": input "${name}" is missing`);
    const data = "data" in given ? given.data : given;
    if (data.length !== numel(value.shape)) {
      throw new TypeError(
        `Cannot run graph "${graph.name}": input "${name}" has ${data.length} elements, expected [${value.shape}]`,
      );
    }
    values.set(value.id, arr(value.shape, data));
  }
  const states = new Map(graph.states.map((s) => [s.name, s]));
  const state = (name: string): Arr => {
    if (!memory.has(name)) memory.set(name, arr(states.get(name)!.shape));
    return memory.get(name)!;
  };
  /** Puts the parts of a value into the states that it covers, in order. */
  const store = (names: readonly string[], value: Arr, put: (old: number, x: number) => number): void => {
    let at = 0;
    for (const name of names) {
      const old = state(name);
      const round = states.get(name)!.dtype === "bf16" ? roundBf16 : (x: number) => x;
      memory.set(name, arr(old.shape, old.data.map((x, i) => round(put(x, value.data[at + i])))));
      at += old.data.length;
    }
  };
  for (const node of graph.nodes) {
    const args = node.inputs.map((v) => values.get(v.id)!);
    const names = (node.attrs.states ?? node.attrs.into) as readonly string[];
    const put = (old: number, x: number) => node.attrs.begin && first ? x : old + x;
    let outputs: Arr[] = [];
    const use = stateUse(node);
    if (use === "reads") {
      outputs = [arr(node.outputs[0].shape, names.flatMap((n) => [...state(n).data]))];
    } else if (use === "replaces") store(names, args[0], (_old, x) => x);
    else if (use === "adds") store(names, args[0], put);
    else {
      const { together, reference } = opOf(node.op);
      const isLeft = node.attrs.last === true && !last;
      const results = isLeft
        ? args
        : together
        ? yield { node, operands: args }
        : reference!(args, node.attrs, node.outputs);
      outputs = results.map((x, i) => isStored(node.outputs[i].dtype) ? roundedTo(node.outputs[i].dtype, x) : x);
      if (node.attrs.into) store(names, outputs[opOf(node.op).into!], put);
    }
    node.outputs.forEach((v, i) => values.set(v.id, outputs[i]));
    trace?.(node, outputs);
  }
  return Object.fromEntries(graph.outputs.map(({ name, value }) => [name, values.get(value.id)!]));
}
