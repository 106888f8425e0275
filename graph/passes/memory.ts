/** Pass `memory`: offsets in one arena for the graphs of a step. States first (parameters, gradients, moments, sums; those that a
 * graph reads as one lie one after another), then one region that the sections share, since they never run at once: in it each
 * value lives from its first write to its last use, in place of an input that dies where the op allows it. Behind it lies what a step's
 * first microbatch alone gathers, which is there for all of them.
 * Sizes and offsets are bytes; lifetimes are node indices.
 * @module */
import { opOf } from "../builder.ts";
import { hasEffect, touchedStates } from "../edit.ts";
import { stateUse } from "../facts.ts";
import {
  consumers,
  dtypeBytes,
  type Graph,
  type Node,
  producers,
  sizeBytes,
  type State,
  type StateKind,
  type Value,
} from "../ir.ts";
import { type Base, ownsBase, type Places, placeValues } from "../place.ts";
import { scopeText } from "../print.ts";
import type { Target } from "../target/target.ts";
import { transfersOf } from "../units.ts";
import type { View } from "../view.ts";
import { bestFit } from "./best_fit.ts";

/** A part of the shared region while it is in use. */
export interface Allocation {
  /** Bytes from the start of the arena. */
  offset: number;
  readonly bytes: number;
  /** First and last node that touch it. */
  readonly first: number;
  readonly last: number;
  /** Last node beside which a collective may still be at work on it: no kernel before writes here. */
  readonly held: number;
  /** What it is for: a parameter that other ranks store, made in forward and still needed in backward, in use for a while, or a
   * kernel's own for one node. */
  readonly use: "gathered" | "kept" | "transient" | "scratch";
  /** What it holds, for people: op and module path. */
  readonly label: string;
}

/** A value's place in the packed host buffer of a section's inputs or outputs. */
export interface HostSlot {
  readonly name: string;
  readonly value: Value;
  /** Bytes from the section's base. */
  readonly offset: number;
}

/** Bytes from the start of the arena, of the slot that a run is given, or of the other slot that it may read (`source`). */
export interface Spot {
  readonly space: "arena" | "slot" | "source";
  readonly offset: number;
}

/** Memory of one graph. */
export interface SectionMemory {
  readonly graph: Graph;
  readonly places: Places;
  readonly allocations: readonly Allocation[];
  /** What is gathered once a step, beyond the region. */
  readonly gathered: readonly Allocation[];
  readonly inputs: readonly HostSlot[];
  readonly outputs: readonly HostSlot[];
  readonly inputBytes: number;
  readonly outputBytes: number;
  /** Where a base lies that is no input: bytes from the start of the arena, or of a slot. */
  spotOf(base: Base): Spot;
  /** Arena offset of a node's scratch, with its bytes. */
  scratchOf(node: Node): { offset: number; bytes: number } | undefined;
  /** Assigns whose value is made in the state's own memory: nothing to run. */
  readonly inPlaceAssigns: ReadonlySet<Node>;
}

/** The plan of all graphs of a step. */
export interface MemoryPlan {
  /** The device that it is made for. */
  readonly target: Target;
  readonly threads: number;
  readonly arenaBytes: number;
  /** Microbatches of which something is kept at a time, and the bytes kept of each, at the end of the arena. */
  readonly slots: { readonly count: number; readonly bytes: number };
  /** Bytes of states by kind, with all that is gathered once a step, then of the shared region. */
  readonly categories: Readonly<Record<StateKind | "transient", number>>;
  readonly states: ReadonlyMap<string, { readonly state: State; readonly offset: number }>;
  readonly sections: readonly SectionMemory[];
}

/** The next multiple. */
const align = (bytes: number, to: number): number => Math.ceil(bytes / to) * to;

/** What a plan is made for: a device, and how many threads its kernels' scratch is sized for. */
export interface MemoryOptions {
  readonly target: Target;
  readonly threads: number;
  /** Slots of the graphs that keep activations for each other; default 1. */
  readonly slots?: number;
}

/** Plans the memory of a step.
 * @param graphs all graphs over the same states. */
export function memory(graphs: readonly Graph[], { target, threads, slots: count = 1 }: MemoryOptions): MemoryPlan {
  const { states, bytes: stateBytes, slotBytes, categories } = placeStates(graphs, target.alignment);
  const sections = graphs.map((graph) => planSection(graph, { target, threads, states, start: stateBytes }));
  const regionEnd = sections.flatMap((s) => s.allocations).reduce(
    (n, b) => Math.max(n, b.offset + b.bytes),
    stateBytes,
  );
  let end = regionEnd;
  for (const kept of sections.flatMap((s) => s.gathered)) {
    kept.offset = align(end, target.alignment);
    end = kept.offset + kept.bytes;
  }
  const slots = { count, bytes: slotBytes }, activation = count * slotBytes, once = end - regionEnd;
  const arenaBytes = align(end + activation, target.page);
  return {
    target,
    threads,
    arenaBytes,
    slots,
    categories: {
      ...categories,
      activation,
      gathered: categories.gathered + once,
      transient: arenaBytes - activation - once - stateBytes,
    },
    states,
    sections,
  };
}

/** States by kind; states that some node touches as one are neighbours. Activations have places in their slot, from its start on for each
 * stage, since a slot is one stage's at a time. */
function placeStates(graphs: readonly Graph[], alignment: number) {
  const all = new Map(graphs.flatMap((g) => g.states).map((s) => [s.name, s]));
  const groups = new Map<string, readonly string[]>();
  for (const node of graphs.flatMap((g) => g.nodes)) {
    const names = touchedStates(node);
    if (names.length < 2) continue;
    const known = names.map((n) => groups.get(n)).find((g) => g !== undefined);
    if (known && String(known) !== String(names)) {
      throw new Error(`Cannot place states [${names}] and [${known}]: one state in two groups`);
    }
    names.forEach((n) => groups.set(n, names));
  }
  const states = new Map<string, { state: State; offset: number }>();
  const categories: Record<StateKind, number> = {
    parameter: 0,
    gradient: 0,
    moment: 0,
    sum: 0,
    buffer: 0,
    cache: 0,
    activation: 0,
    gathered: 0,
  };
  let bytes = 0;
  for (const kind of Object.keys(categories) as StateKind[]) {
    const start = bytes;
    for (const { name, kind: own } of all.values()) {
      if (own !== kind || kind === "activation" || states.has(name)) continue;
      for (const member of groups.get(name) ?? [name]) {
        const state = all.get(member)!;
        states.set(member, { state, offset: bytes });
        bytes += sizeBytes(state);
      }
      bytes = align(bytes, alignment);
    }
    categories[kind] = bytes - start;
  }
  const ends = new Map<string, number>();
  for (const state of all.values()) {
    if (state.kind !== "activation") continue;
    const offset = ends.get(state.of!) ?? 0;
    states.set(state.name, { state, offset });
    ends.set(state.of!, align(offset + sizeBytes(state), alignment));
  }
  return { states, bytes, slotBytes: Math.max(0, ...ends.values()), categories };
}

interface Life {
  first: number;
  last: number;
  held: number;
  readonly bytes: number;
  readonly label: string;
}

/** @param options `start`: where the region of sections begins. */
function planSection(
  graph: Graph,
  { target, threads, states, start }: MemoryOptions & Pick<MemoryPlan, "states"> & { readonly start: number },
): SectionMemory {
  const { alignment, lowerings } = target, places = placeValues(graph, target);
  const lives = lifetimes(graph, places);
  /** What is made in a state's own memory, and which. */
  const assigned = new Map<Base, string>();
  const inPlaceAssigns = assignInPlace(graph, places, lives, (name, base) => assigned.set(base, name));
  const stateSpot = (name: string): Spot => {
    const { state: { kind, of }, offset } = states.get(name)!;
    return { space: kind !== "activation" ? "arena" : of === graph.slot ? "slot" : "source", offset };
  };
  const lasting = gatheredOnce(graph, places, lives);
  const home = shareMemory(graph, places, lives, { assigned, lasting });
  holdWhileTravelling(graph, places, lives, {
    home,
    isIdle: (node) => places.isView(node) || inPlaceAssigns.has(node),
  });
  const allocations = new Map<Base, Allocation>();
  // What is gathered ahead for backward does not begin it.
  const gradient = graph.nodes.findIndex((n) => n.phase === "backward");
  const gathers = transfersOf(graph).filter((t) => t.kind === "gather").flatMap((t) => t.node.outputs);
  const gathered = new Set(gathers.map((v) => home(places.of.get(v)!.base)));
  for (const [base, { first, last, held, bytes, label }] of lives) {
    const isKept = gradient > 0 && first < gradient && last >= gradient;
    const use = gathered.has(base) ? "gathered" : isKept ? "kept" : "transient";
    allocations.set(base, { offset: 0, bytes, first, last, held, use, label });
  }
  const isLasting = ([base]: readonly [Base, Allocation]) => lasting.has(base);
  const once = [...allocations].filter(isLasting).map(([, a]) => a),
    region = [...allocations].filter((a) => !isLasting(a));
  const scratch = new Map<Node, Allocation>();
  for (const [i, node] of graph.nodes.entries()) {
    const bytes = lowerings[node.op]?.scratch?.(node, threads) ?? 0;
    if (bytes > 0) {
      const life = { first: i, last: i, held: i };
      scratch.set(node, { offset: 0, bytes, ...life, use: "scratch", label: `scratch of ${label(node)}` });
    }
  }
  const list = [...region.map(([, a]) => a), ...scratch.values()];
  bestFit(list, { start, alignment, isSent: ({ first }) => isCollective(graph.nodes[first]) });
  const host = (slots: readonly { name: string; value: Value }[]) => {
    let offset = 0;
    const placed = slots.map(({ name, value }) => {
      const slot = { name, value, offset };
      offset = align(offset + sizeBytes(value), alignment);
      return slot;
    });
    return { placed, bytes: offset };
  };
  const inputs = host(graph.inputs), outputs = host(graph.outputs);
  return {
    graph,
    places,
    allocations: list,
    gathered: once,
    inputs: inputs.placed,
    outputs: outputs.placed,
    inputBytes: inputs.bytes,
    outputBytes: outputs.bytes,
    spotOf: (base) => {
      const root = home(base), state = base.kind === "state" ? base.names[0] : assigned.get(root);
      return state === undefined ? { space: "arena", offset: allocations.get(root)!.offset } : stateSpot(state);
    },
    scratchOf: (node) => scratch.get(node),
    inPlaceAssigns,
  };
}

/** Results of a node, each with an operand whose memory it may take. */
const pairsOf = ({ target }: Places, node: Node) => target.lowerings[node.op]?.inPlace?.(node) ?? [];

const label = (node: Node): string => `${node.op} ${scopeText(node)}`.trim();

/** First write and last use of every base that is a value's. A graph output lives to the end. */
function lifetimes(graph: Graph, places: Places): Map<Base, Life> {
  const lives = new Map<Base, Life>();
  const touch = (value: Value, at: number, node: Node): void => {
    const { base } = places.of.get(value)!;
    if (base.kind !== "value") return;
    const life = lives.get(base);
    if (!life) {
      lives.set(base, { first: at, last: at, held: at, bytes: base.size * dtypeBytes[base.dtype], label: label(node) });
    } else {
      life.first = Math.min(life.first, at);
      life.last = Math.max(life.last, at);
    }
  };
  for (const [at, node] of graph.nodes.entries()) {
    if (places.isView(node)) continue;
    node.outputs.forEach((v) => touch(v, at, node));
    const read = opOf(node.op).joins ? places.copiedPieces(node).map((p) => p.value) : node.inputs;
    read.forEach((v) => touch(v, at, node));
  }
  for (const { value } of graph.outputs) {
    const life = lives.get(places.of.get(value)!.base);
    if (life) life.last = graph.nodes.length;
  }
  return lives;
}

const isCollective = (node: Node | undefined): boolean => node !== undefined && opOf(node.op).together !== undefined;

/** A collective is at work beside the kernels until one of them needs what it makes, or what one behind it makes. So long, no kernel
 * writes to its operands, as it would have to wait; those of the collectives behind it may lie there. */
function holdWhileTravelling(
  graph: Graph,
  places: Places,
  lives: ReadonlyMap<Base, Life>,
  { home, isIdle }: { readonly home: (base: Base) => Base; readonly isIdle: (node: Node) => boolean },
): void {
  const uses = consumers(graph), position = new Map(graph.nodes.map((n, i) => [n, i]));
  /** The first kernel that reads a value, or a view of it. */
  const firstKernel = (value: Value): number => {
    const readers = uses.get(value) ?? [];
    const ats = readers.flatMap((n) =>
      isIdle(n) || opOf(n.op).joins ? n.outputs.map(firstKernel) : isCollective(n) ? [] : [position.get(n)!]
    );
    return Math.min(graph.nodes.length, ...ats);
  };
  for (const life of lives.values()) life.held = life.last;
  let awaited = graph.nodes.length;
  for (const node of graph.nodes.toReversed()) {
    if (!isCollective(node)) continue;
    awaited = Math.min(awaited, ...node.outputs.map(firstKernel));
    for (const value of [...node.inputs, ...node.outputs]) {
      const life = lives.get(home(places.of.get(value)!.base));
      if (life) life.held = Math.max(life.held, awaited - 1);
    }
  }
}

/** What is asked of a node that makes what states become. */
interface Facts {
  /** Operands whose memory an output may take, by output. */
  readonly inPlace: ReadonlyMap<Value, ReturnType<typeof pairsOf>>;
  /** Which of its inputs lie on each state or graph input. */
  readonly on: ReadonlyMap<string, readonly number[]>;
}

/** Values that may be made in the memory of the states that they are assigned to: nobody reads what was there later. */
function assignInPlace(
  graph: Graph,
  places: Places,
  lives: Map<Base, Life>,
  put: (state: string, base: Base) => void,
): Set<Node> {
  const done = new Set<Node>(), made = producers(graph);
  const lastRead = new Map<string, number>(), writes = new Map<string, number[]>();
  for (const [at, node] of graph.nodes.entries()) {
    if (hasEffect(node)) touchedStates(node).forEach((s) => writes.set(s, [...writes.get(s) ?? [], at]));
    if (places.isView(node)) continue;
    for (const { base } of node.inputs.map((v) => places.of.get(v)!)) {
      if (base.kind === "state") base.names.forEach((n) => lastRead.set(n, at));
    }
  }
  const known = new Map<Node, Facts>();
  /** AdamW of all parameters is one node with very many operands, asked about by each assign. */
  const factsOf = (node: Node): Facts => {
    let facts = known.get(node);
    if (!facts) {
      const on = new Map<string, number[]>();
      for (const [i, v] of node.inputs.entries()) {
        for (const name of places.of.get(v)!.base.names) on.set(name, [...on.get(name) ?? [], i]);
      }
      const inPlace = Map.groupBy(pairsOf(places, node), ([o]) => node.outputs[o]);
      known.set(node, facts = { inPlace, on });
    }
    return facts;
  };
  for (const [at, node] of graph.nodes.entries()) {
    const [value] = node.inputs,
      states = touchedStates(node),
      by = value && made.get(value),
      life = value && lives.get(places.of.get(value)!.base);
    if (stateUse(node) !== "replaces" || states.length > 1 || !by || !life) continue;
    if (writes.get(states[0])!.some((write) => write !== at && write >= life.first)) continue;
    const place = places.of.get(value)!, read = lastRead.get(states[0]) ?? -1;
    const { inPlace, on } = factsOf(by);
    /** The maker reads the old state, element by element as it writes the new one. */
    const isElementwise = (on.get(states[0]) ?? []).every((i) => {
      const { base, view } = places.of.get(by.inputs[i])!;
      return base.kind === "input" ||
        base.names.length === 1 && sameView(view, place.view) && !!inPlace.get(value)?.some(([, k]) => k === i);
    });
    if (!ownsBase(place) || !(read < life.first || graph.nodes[read] === by && life.first === read && isElementwise)) {
      continue;
    }
    put(states[0], place.base);
    lives.delete(place.base);
    done.add(node);
  }
  return done;
}

const sameView = (a: View, b: View): boolean =>
  a.offset === b.offset && String(a.shape) === String(b.shape) && String(a.strides) === String(b.strides);

/** What a step's first microbatch alone gathers, where others read it, and does not make in a state's memory. */
function gatheredOnce(graph: Graph, places: Places, lives: ReadonlyMap<Base, Life>): Set<Base> {
  const uses = consumers(graph), outputs = graph.nodes.filter((n) => n.attrs.first).flatMap((n) => n.outputs);
  const bases = outputs.filter((v) => !uses.get(v)?.every((n) => n.attrs.first)).map((v) => places.of.get(v)!.base);
  return new Set(bases.filter((base) => lives.has(base)));
}

/** Lets outputs take the memory of inputs that die: returns where each base lives. All pieces that a node writes on the new base
 * must lie exactly on pieces that it reads on the dying one. */
function shareMemory(
  graph: Graph,
  places: Places,
  lives: Map<Base, Life>,
  { assigned, lasting }: { readonly assigned: ReadonlyMap<Base, string>; readonly lasting: ReadonlySet<Base> },
): (base: Base) => Base {
  const parent = new Map<Base, Base>();
  const home = (base: Base): Base => {
    let root = base;
    while (parent.has(root)) root = parent.get(root)!;
    return root;
  };
  for (const [at, node] of graph.nodes.entries()) {
    const pairs = places.isView(node) ? [] : pairsOf(places, node);
    const taken = new Set<Base>();
    for (const [o, i] of pairs) {
      const to = places.of.get(node.outputs[o])!.base, from = places.of.get(node.inputs[i])!.base;
      const [a, b] = [home(from), home(to)];
      if (a === b || [a, b].some((base) => assigned.has(base) || lasting.has(base)) || taken.has(a)) continue;
      const [old, fresh] = [lives.get(a), lives.get(b)];
      if (
        !old || !fresh || old.last !== at || fresh.first !== at || old.bytes !== fresh.bytes ||
        dtypeBytes[from.dtype] !== dtypeBytes[to.dtype]
      ) continue;
      const written = node.outputs.filter((v) => places.of.get(v)!.base === to);
      const read = node.inputs.filter((v) => home(places.of.get(v)!.base) === a);
      const viewOf = (v: Value) => places.of.get(v)!.view;
      const match = (out: Value, input: Value) =>
        sameView(viewOf(out), viewOf(input)) &&
        pairs.some(([x, y]) => node.outputs[x] === out && node.inputs[y] === input);
      const safe = written.every((w) => read.some((r) => match(w, r))) &&
        read.every((r) => written.some((w) => match(w, r)));
      const covers = written.reduce((n, v) => n + sizeBytes(v), 0) === fresh.bytes;
      if (!safe || !covers) continue;
      parent.set(b, a);
      old.last = fresh.last;
      lives.delete(b);
      taken.add(a);
    }
  }
  return home;
}
