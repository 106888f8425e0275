/** The search behind `remat`'s memory budget: the cheapest recomputation whose memory plan fits. For each block it looks at sets of
 * values to keep; blocks are combined by dynamic programming over estimates, and what comes out is judged by the plan itself.
 * Blocks that are built alike share their analysis; no name of a model is known here.
 * @module */
import { opOf } from "../builder.ts";
import { touchedStates } from "../edit.ts";
import { fillOf, onlyPlaces, stateUse } from "../facts.ts";
import { type Graph, inBackward, type Node, numel, producers, sizeBytes, type Value } from "../ir.ts";
import { flopsOf } from "../op.ts";
import type { Costs } from "../target/target.ts";
import { joinedProducts } from "./fuse_products.ts";
import type { Allocation } from "./memory.ts";
import { Forward, leastKept, recomputedFlops, remake } from "./remat.ts";

/** What the search shall do. */
export type RematBudget =
  /** A share of what lies between making again all that can be (0) and nothing but what is nearly free (1). */
  | { readonly mode: "memory_budget"; readonly fraction: number }
  /** The whole arena, states and all. */
  | { readonly mode: "memory_budget"; readonly bytes: number };

/** More sets than these are not looked at closely. */
const MOST_ATOMS = 12, MOST_CHOICES = 16;
/** How many assignments of choices to the first blocks are carried on to the next. */
const MOST_ASSIGNMENTS = 1000;
/** How many plans are made to find the cheapest one that fits. */
const MOST_JUDGED = 16;
/** Part of the arena that an estimate may be off by. */
const SLACK = 2e-3;

/** A graph as it will run, and its memory. */
export interface Judged {
  /** After all passes: the graph, or what a stage's graph is cut into. `allocations`: the pieces of the shared region that it uses. */
  readonly sections: readonly { readonly graph: Graph; readonly allocations: readonly Allocation[] }[];
  /** Of a stage: of how many microbatches at a time something is kept, in states. Otherwise what is kept lies in the region. */
  readonly slots?: number;
  /** Of all graphs of the step. */
  readonly arenaBytes: number;
}

/** Compiles a graph to the end and plans its memory. */
export type Judge = (graph: Graph) => Judged;

/** A choice of what to keep, with its price. */
export interface RematPoint {
  /** The graph with what is made again. */
  readonly graph: Graph;
  /** As planned, states and all. */
  readonly arenaBytes: number;
  /** FLOPs of what is made again. */
  readonly recomputedFlops: number;
  /** Predicted time of a microbatch, as a multiple of what it takes when only what is nearly free is made again. */
  readonly slowdown: number;
}

interface EvaluatedPoint extends RematPoint {
  readonly seconds: number;
  readonly judged: Judged;
}

/** No choice fits. */
export class MemoryBudgetError extends RangeError {
  /** Always this. */
  override readonly name = "MemoryBudgetError";

  /** @ignore */
  constructor(readonly budgetBytes: number, readonly leastBytes: number) {
    const count = (n: number) => `${n.toLocaleString("en-US")} B`;
    super(
      `Cannot keep the arena within a memory budget of ${count(budgetBytes)}: it takes ${count(leastBytes)} ` +
        `when backward makes again all that it can
  expected: a budget of at least ${count(leastBytes)}
  fix: raise activation_checkpoint.memory_budget, or lower training.local_batch_size or training.seq_len   (memory_budget)`,
    );
  }
}

/** Predicted seconds of a graph as it will run. */
export function predictedSeconds(graph: Graph, costs: Costs): number {
  return graph.nodes.reduce((sum, node) => sum + secondsOf(node, costs), 0);
}

function secondsOf(node: Node, { flopsPerSecond, bytesPerSecond }: Costs): number {
  if (onlyPlaces(node.op) || stateUse(node) === "reads" || fillOf(node) !== undefined) return 0;
  const op = opOf(node.op), bytes = [...node.inputs, ...node.outputs].reduce((sum, v) => sum + sizeBytes(v), 0);
  return flopsOf(op, node) / flopsPerSecond[op.recompute ?? "cheap"] + bytes / bytesPerSecond;
}

/** Nodes that are kept or made again together: one node, or products that run as one. */
export type Atom = readonly Node[];

/** One set of atoms of a block to keep, with what it was found to take. Bytes are those of values and scratch, without gaps. */
interface Choice {
  readonly keep: ReadonlySet<Atom>;
  /** Kept from the block's forward to its backward. */
  kept: number;
  /** The most that is alive while the block runs, either way, without what earlier blocks keep; without what any keeps in slots. */
  peak: number;
  /** Seconds more than with all kept. */
  seconds: number;
}

interface BlockChoices {
  readonly name: string;
  readonly atoms: readonly Atom[];
  readonly choices: Choice[];
}

/** An assignment of choices to blocks, from the first block on. */
interface Assignment {
  readonly kept: number;
  readonly peak: number;
  readonly seconds: number;
  readonly choices: readonly Choice[];
}

/** A search on one graph. Analyses and plans are made once. */
export class RematSearch {
  readonly #graph: Graph;
  readonly #forward: Forward;
  readonly #judge: Judge;
  readonly #costs: Costs;
  readonly #points = new Map<string, EvaluatedPoint>();
  readonly #indices: ReadonlyMap<Node, number>;
  #assignments: (Assignment & { readonly bytes: number })[] | undefined;
  /** Blocks and what in them could be kept or made again. */
  readonly blocks: readonly { readonly name: string; readonly atoms: readonly Atom[] }[];

  /** @param graph before `remat`. @param options `judge` compiles and plans what is made of it; `costs`: what work takes. */
  constructor(graph: Graph, { judge, costs }: { readonly judge: Judge; readonly costs: Costs }) {
    this.#graph = graph;
    this.#judge = judge;
    this.#costs = costs;
    const forward = this.#forward = new Forward(graph);
    this.#indices = new Map(graph.nodes.map((n, i) => [n, i]));
    const first = new Map<Node, Node>(), made = producers(graph);
    for (const nodes of joinedProducts(graph)) nodes.forEach((n) => first.set(n, nodes[0]));
    const kept = forward.keptWith(leastKept(forward, new Set()));
    this.blocks = forward.blocks.map((name) => {
      const inside = new Set(forward.inside(new Set([name])));
      // Cheap work on one product goes with the product: `fuse` may make it part of what reads it, such as a rotation.
      const headOf = (node: Node): Node => {
        const sources = new Set(node.inputs.map((v) => made.get(forward.root(v))).filter((n) => n && inside.has(n)));
        const [source] = sources;
        return sources.size === 1 && opOf(node.op).recompute === "cheap" ? headOf(source!) : first.get(node) ?? node;
      };
      const nodes = [...inside].filter((n) => n.outputs.some((v) => kept.has(v)));
      return { name, atoms: smallestJoined([...Map.groupBy(nodes, headOf).values()]) };
    });
  }

  /** The point where some atoms are kept, and of blocks that miss one, all else is made again. */
  point(keep: ReadonlySet<Atom>): RematPoint {
    return this.#evaluate(keep);
  }

  #evaluate(keep: ReadonlySet<Atom>): EvaluatedPoint {
    const key = [...keep].map((atom) => this.#indices.get(atom[0])!).sort((a, b) => a - b).join(" ");
    let point = this.#points.get(key);
    if (!point) {
      const open = this.blocks.filter((b) => b.atoms.some((atom) => !keep.has(atom))).map((b) => b.name);
      const allowed = new Set(this.#forward.inside(new Set(open)));
      const remade = leastKept(this.#forward, allowed, new Set([...keep].flat()));
      const graph = remake(this.#graph, remade), judged = this.#judge(graph);
      const seconds = judged.sections.reduce((sum, { graph }) => sum + predictedSeconds(graph, this.#costs), 0);
      const { recomputed } = recomputedFlops(graph), { arenaBytes } = judged;
      const slowdown = keep.size === this.#all.size ? 1 : seconds / this.#evaluate(this.#all).seconds;
      this.#points.set(key, point = { graph, arenaBytes, recomputedFlops: recomputed, slowdown, seconds, judged });
    }
    return point;
  }

  /** All atoms: nothing but what is nearly free is made again. */
  get #all(): Set<Atom> {
    return new Set(this.blocks.flatMap((b) => b.atoms));
  }

  /** Assignments that are worth a look, the fastest first and each smaller than those before it, by estimate. */
  #estimates(): readonly (Assignment & { readonly bytes: number })[] {
    if (this.#assignments) return this.#assignments;
    const all = this.#evaluate(this.#all),
      outside = this.#outside(all.judged),
      inSlots = all.judged.slots !== undefined;
    let assignments: Assignment[] = [{ kept: 0, peak: 0, seconds: 0, choices: [] }], grid = 1;
    for (const { choices } of this.#analyse()) {
      assignments = assignments.flatMap((before) =>
        choices.map((choice): Assignment => ({
          kept: before.kept + choice.kept,
          peak: Math.max(before.peak, (inSlots ? 0 : before.kept) + choice.peak),
          seconds: before.seconds + choice.seconds,
          choices: [...before.choices, choice],
        }))
      );
      for (assignments = fastestOf(assignments, grid); assignments.length > MOST_ASSIGNMENTS; grid *= 2) {
        assignments = fastestOf(assignments, grid);
      }
    }
    const bytesOf = ({ peak, kept }: Assignment) =>
      inSlots ? kept + Math.max(peak, outside) : Math.max(peak, kept + outside);
    const complete = assignments.map((p) => ({ ...p, bytes: bytesOf(p) }));
    let least = Infinity;
    this.#assignments = complete.sort((a, b) => a.seconds - b.seconds || a.bytes - b.bytes).filter(({ bytes }) => {
      const isSmaller = bytes < least;
      least = Math.min(least, bytes);
      return isSmaller;
    });
    return this.#assignments;
  }

  /** The most that is alive outside of all blocks, without what blocks keep. */
  #outside(judged: Judged): number {
    const { alive, blockAt, kept } = profile(judged), sum = [...kept.values()].reduce((a, b) => a + b, 0);
    return Math.max(0, ...alive.filter((_, t) => blockAt[t] === undefined)) - (judged.slots === undefined ? sum : 0);
  }

  /** Measures the choices of every block, on plans in which all blocks of a kind choose alike. */
  #analyse(): BlockChoices[] {
    const kinds = Map.groupBy(this.blocks, (b) => this.#kindOf(b.name)), all = this.#all;
    const base = this.#evaluate(all).seconds, result = new Map<string, BlockChoices>();
    for (const blocks of kinds.values()) {
      const entries = blocks.map(({ name, atoms }): BlockChoices => ({ name, atoms, choices: [] }));
      entries.forEach((e) => result.set(e.name, e));
      for (const mask of this.#masks(blocks[0])) {
        const keep = new Set(all);
        blocks.forEach(({ atoms }) => atoms.forEach((atom, i) => mask[i] || keep.delete(atom)));
        const { judged, seconds } = this.#evaluate(keep), { alive, blockAt, kept } = profile(judged);
        let before = 0;
        for (const { name } of this.blocks) {
          const entry = entries.find((e) => e.name === name), own = kept.get(name) ?? 0;
          const peak = Math.max(0, ...alive.filter((_, t) => blockAt[t] === name)) - before;
          if (judged.slots === undefined) before += own;
          if (!entry) continue;
          const chosen = new Set(entry.atoms.filter((_, i) => mask[i]));
          entry.choices.push({ keep: chosen, kept: own, peak, seconds: (seconds - base) / blocks.length });
        }
      }
    }
    return this.blocks.map((b) => result.get(b.name)!);
  }

  /** Sets of atoms of a block, as flags; of many, those that none beats in both bytes and seconds before fusion. */
  #masks({ name, atoms }: { readonly name: string; readonly atoms: readonly Atom[] }): boolean[][] {
    const nodes = this.#forward.inside(new Set([name])),
      masks: { mask: boolean[]; bytes: number; seconds: number }[] = [];
    for (let bits = 0; bits < 2 ** atoms.length; bits++) {
      const mask = atoms.map((_, i) => (bits >> i & 1) === 1);
      const keep = new Set(atoms.filter((_, i) => mask[i]).flat()), needed = new Set(this.#forward.needed);
      let bytes = 0, seconds = 0;
      for (const node of nodes.toReversed()) {
        const used = node.outputs.filter((v) => needed.has(v));
        if (used.length === 0) continue;
        if (keep.has(node)) bytes += used.reduce((sum, v) => sum + sizeBytes(v), 0);
        else {
          seconds += secondsOf(node, this.#costs);
          node.inputs.forEach((v) => needed.add(this.#forward.root(v)));
        }
      }
      masks.push({ mask, bytes, seconds });
    }
    masks.sort((a, b) => a.bytes - b.bytes || a.seconds - b.seconds);
    let fastest = Infinity;
    const useful = masks.length <= MOST_CHOICES ? masks : masks.filter(({ seconds }) => {
      const isFaster = seconds < fastest;
      fastest = Math.min(fastest, seconds);
      return isFaster;
    });
    const step = Math.max(1, (useful.length - 1) / (MOST_CHOICES - 1));
    const picked = new Set(useful.map((_, i) => Math.min(useful.length - 1, Math.round(i * step))));
    const chosen = [...picked].map((i) => useful[i].mask);
    return chosen.some((mask) => mask.every((m) => m)) ? chosen : [...chosen, atoms.map(() => true)];
  }

  /** Text that is equal for blocks that are built alike. */
  #kindOf(name: string): string {
    const nodes = this.#graph.nodes.filter((n) => n.block === name && !inBackward(n));
    const own = new Map<Value, string>(nodes.flatMap((n, i) => n.outputs.map((v, k) => [v, `${i}.${k}`])));
    const typeOf = (v: Value) => `${v.dtype}${v.shape}`;
    return nodes.map(({ op, inputs, outputs, attrs }) => {
      const rest = Object.entries(attrs).filter(([key]) => key !== "states");
      return `${op} ${JSON.stringify(rest)} ${inputs.map((v) => own.get(v) ?? typeOf(v))} ${outputs.map(typeOf)}`;
    }).join("\n");
  }

  /** Points from the fastest to the smallest, each smaller and slower than the one before it; their bytes are those of plans.
   * @param count how many are looked for. */
  frontier(count = 24): RematPoint[] {
    const list = this.#estimates(), [most, least] = [list[0].bytes, list.at(-1)!.bytes];
    const wanted = Array.from({ length: count }, (_, i) => most - (most - least) * i / (count - 1));
    const chosen = new Set(wanted.map((bytes) => list.find((a) => a.bytes <= bytes) ?? list.at(-1)!));
    const points = [...chosen].map((a) => this.#pointOf(a)).sort((a, b) => a.slowdown - b.slowdown);
    return points.filter((p, i) => points.slice(0, i).every((q) => q.arenaBytes > p.arenaBytes));
  }

  #pointOf({ choices }: Assignment): RematPoint {
    return this.#evaluate(new Set(choices.flatMap((c) => [...c.keep])));
  }

  /** The fewest bytes of an arena that were found, and those when only what is nearly free is made again. */
  range(): { readonly least: number; readonly most: number } {
    const ends = [this.#pointOf(this.#estimates().at(-1)!), this.#evaluate(new Set())];
    return { least: Math.min(...ends.map((p) => p.arenaBytes)), most: this.#evaluate(this.#all).arenaBytes };
  }

  /** The fastest point within a budget.
   * @throws {MemoryBudgetError} when there is none. */
  within(budget: RematBudget): RematPoint {
    if ("bytes" in budget) return this.#withinBytes(budget.bytes);
    const { least, most } = this.range();
    return this.#withinBytes(least + budget.fraction * (most - least));
  }

  #withinBytes(bytes: number): RematPoint {
    const list = this.#estimates(), all = this.#evaluate(this.#all);
    if (all.arenaBytes <= bytes) return all;
    let best: RematPoint | undefined, gap = all.arenaBytes - list[0].bytes, judged = 0;
    const judge = (at: number): boolean => {
      const point = this.#pointOf(list[at]);
      judged++;
      gap = point.arenaBytes - list[at].bytes;
      if (point.arenaBytes > bytes) return false;
      if (!best || point.slowdown < best.slowdown) best = point;
      return true;
    };
    let low = 0, at = 0;
    // What the estimates leave out (states, gaps) changes little from one assignment to the next.
    for (; judged < MOST_JUDGED; low = at + 1) {
      const next = list.findIndex((a, i) => i >= low && a.bytes + gap <= bytes);
      at = next < 0 ? list.length - 1 : next;
      if (judge(at) || at === list.length - 1) break;
    }
    // A faster one that was skipped may fit as well.
    const slack = SLACK * all.arenaBytes;
    for (let i = at - 1; i >= low && list[i].bytes + gap <= bytes + slack && judged < MOST_JUDGED; i--) judge(i);
    const { least } = this.range();
    if (!best && least <= bytes) {
      best = [this.#pointOf(list.at(-1)!), this.#evaluate(new Set())].find((p) => p.arenaBytes <= bytes);
    }
    if (!best) throw new MemoryBudgetError(bytes, least);
    return best;
  }
}

/** Of assignments whose bytes are alike, on a grid of so many bytes, the fastest. */
function fastestOf(assignments: readonly Assignment[], grid: number): Assignment[] {
  const best = new Map<string, Assignment>();
  for (const assignment of assignments) {
    const key = `${Math.round(assignment.kept / grid)} ${Math.round(assignment.peak / grid)}`, known = best.get(key);
    const isBetter = !known || assignment.seconds < known.seconds ||
      assignment.seconds === known.seconds && assignment.kept < known.kept;
    if (isBetter) best.set(key, assignment);
  }
  return [...best.values()];
}

/** Joins the smallest atoms into one, where there are too many for all their sets to be looked at. */
function smallestJoined(atoms: readonly Atom[]): Atom[] {
  const bytes = (atom: Atom) => atom.flatMap((n) => n.outputs).reduce((sum, v) => sum + numel(v.shape), 0);
  if (atoms.length <= MOST_ATOMS) return [...atoms];
  const sorted = [...atoms].sort((a, b) => bytes(b) - bytes(a));
  return [...sorted.slice(0, MOST_ATOMS - 1), sorted.slice(MOST_ATOMS - 1).flat()];
}

/** Bytes alive at each node, the block that it belongs to, and what each block keeps for its backward: in the region, or in slots, which are
 * there all the time and count apart. */
function profile({ sections, slots }: Judged) {
  const kept = new Map<string, number>(), alive: number[] = [], blockAt: (string | undefined)[] = [];
  const keep = (block: string | undefined, bytes: number) => {
    if (block !== undefined) kept.set(block, (kept.get(block) ?? 0) + bytes);
  };
  for (const { graph, allocations } of sections) {
    const changes = new Float64Array(graph.nodes.length + 2);
    for (const { first, last, bytes, use } of allocations) {
      changes[first] += bytes;
      changes[last + 1] -= bytes;
      if (use === "kept" && slots === undefined) keep(graph.nodes[first]?.block, bytes);
    }
    let sum = 0;
    graph.nodes.forEach((node, t) => {
      alive.push(sum += changes[t]);
      blockAt.push(node.block);
    });
    if (slots !== undefined) keptInSlots(graph).forEach(([block, bytes]) => keep(block, slots * bytes));
  }
  return { alive, blockAt, kept };
}

/** What a part of a stage leaves in the slot for a later one: the block that makes it, and its bytes. */
function keptInSlots(graph: Graph): (readonly [string | undefined, number])[] {
  const made = producers(graph), kinds = new Map(graph.states.map((s) => [s.name, s.kind]));
  const leaves = graph.nodes.filter((n) =>
    stateUse(n) === "replaces" && kinds.get(touchedStates(n)[0]) === "activation"
  );
  return leaves.map((n) => [made.get(n.inputs[0])?.block, sizeBytes(n.inputs[0])]);
}
