/** From graphs to a native program: the file to read first. Each pass is a pure function, each result is checked by `verify` and can be
 * printed with `TITAN_PRINT=<pass>` (or `all`), and `memory` and `encode` end the list.
 * @module */
import type { Graph, Level } from "../graph/ir.ts";
import { inOrder, type Pass, runPass } from "../graph/pass.ts";
import { encode, type EncodedProgram } from "../graph/passes/encode.ts";
import { fuse } from "../graph/passes/fuse.ts";
import { gatherOnce } from "../graph/passes/gather_once.ts";
import { group } from "../graph/passes/group.ts";
import { materialize } from "../graph/passes/materialize.ts";
import { memory, type MemoryPlan } from "../graph/passes/memory.ts";
import { fullPrecision, type Precision, precision } from "../graph/passes/precision.ts";
import { Forward, remat, type RematPolicy } from "../graph/passes/remat.ts";
import { type Judge, type RematBudget, RematSearch } from "../graph/passes/remat_search.ts";
import { reshard } from "../graph/passes/reshard.ts";
import { schedule } from "../graph/passes/schedule.ts";
import { simplify } from "../graph/passes/simplify.ts";
import { tile } from "../graph/passes/tile.ts";
import { tileAsyncTp } from "../graph/passes/tile_async_tp.ts";
import { tileRing } from "../graph/passes/tile_ring.ts";
import { print } from "../graph/print.ts";
import { cpu } from "../graph/target/cpu.ts";
import type { Target } from "../graph/target/target.ts";
import { verify } from "../graph/verify.ts";
import { cutTurn } from "../parallel/pipeline/cut_turn.ts";

/** What the passes are told. */
export interface PassOptions {
  /** The device that is compiled for; default: `cpu`. */
  readonly target?: Target;
  /** What is multiplied and stored in bf16; default: nothing. */
  readonly precision?: Precision;
  /** What backward makes again; default: what is nearly free. */
  readonly remat?: RematPolicy | RematBudget;
  /** The ranks of a mesh; default: one rank has everything. */
  readonly ranks?: Ranks;
}

/** How long gathered parameters are kept: until a block's forward ends, to be gathered again for backward; until its backward ends; or until
 * the last microbatch of a step. */
export type KeepGathered = "forward" | "microbatch" | "step";

/** How graphs are shared out among ranks. */
export interface Ranks {
  /** From a graph over whole values to the one that every rank runs. */
  partition(graph: Graph): Graph;
  /** What the ranks of a pipeline's stages keep of a graph that is about parameters and sums; default: all of it. */
  holdStates?(graph: Graph): Graph;
  /** Has the last microbatch reduce what ranks have added up for themselves; default: nothing is. */
  reduceSums?(graph: Graph): Graph;
  /** From that to the graph of the one rank that is planned. */
  graphOfRank(graph: Graph): Graph;
  /** Do the keys and values of a sequence go around its ranks, instead of being gathered? */
  readonly ringAttention?: boolean;
  /** The axis whose exchanges are cut up, so that they go on beside the products that they belong to; default: none. */
  readonly asyncAxis?: string;
  /** How long gathered parameters are kept; default `forward`. */
  readonly keepGathered?: KeepGathered;
  /** How many units ahead parameters are gathered; default 1. */
  readonly prefetch?: number;
}

/** Levels of graphs that are not of one rank yet. */
const whole: readonly Level[] = ["global"], ofRanks: readonly Level[] = ["ranks"], either = [...whole, ...ofRanks];

/** The passes over each graph of a step, in order, which is checked here: of each pass, the levels that it takes and what it comes
 * behind. `autodiff` comes before them: `traceMicrobatch` appends the gradient to the
 * forward graph that it traces.
 * @param found what a search for a memory budget has found, by the names of graphs; of others `remat` then makes again what is nearly
 * free. */
export function passes(options: PassOptions = {}, found: ReadonlyMap<string, Graph> = new Map()): readonly Pass[] {
  const { remat: policy, ranks, target = cpu } = options;
  const rematGraph = (graph: Graph): Graph =>
    policy?.mode !== "memory_budget" ? remat(graph, policy) : found.get(graph.name) ?? remat(graph);
  const numbers = options.precision ?? fullPrecision, asyncAxis = ranks?.asyncAxis;
  const keep = ranks?.keepGathered ?? "forward";
  const list: readonly (Pass | false | undefined)[] = [
    // bf16 where it is asked for
    { name: "precision", takes: whole, behind: [], run: (g) => precision(g, { ...numbers, target }) },
    // common subexpressions, dead code, merged casts and reshapes
    { name: "simplify", takes: whole, behind: ["precision"], run: simplify },
    // a rank's parts, collectives
    ranks && { name: "partition", takes: whole, gives: "ranks", behind: ["simplify"], run: (g) => ranks.partition(g) },
    // of parameters and sums, those of a rank's stages
    ranks?.holdStates &&
    {
      name: "hold",
      takes: ofRanks,
      behind: ["partition"],
      run: (g) => g.slot === undefined ? ranks.holdStates!(g) : g,
    },
    // head and cross-entropy in chunks: the logits are never whole
    { name: "tile", takes: either, behind: ["simplify", "partition"], run: (g) => tile(g, target.chunks) },
    // attention to one rank's keys after another's
    ranks?.ringAttention && { name: "tile_ring", takes: ofRanks, behind: ["partition"], run: tileRing },
    // what is kept for backward, what is made again there
    { name: "remat", takes: either, behind: ["simplify", "tile", "tile_ring"], run: rematGraph },
    // parameters, gathered again in backward
    ranks && keep === "forward" && { name: "reshard", takes: ofRanks, behind: ["remat"], run: reshard },
    // joined products, norms with residuals, gradients added in place, map programs
    { name: "fuse", takes: either, behind: ["remat", "reshard"], run: (g) => fuse(g, target) },
    // products of one rank's rows after another's
    asyncAxis !== undefined &&
    { name: "tile_async_tp", takes: ofRanks, behind: ["fuse"], run: (g: Graph) => tileAsyncTp(g, asyncAxis) },
    // parameters, once a step
    ranks && keep === "step" && { name: "gather_once", takes: ofRanks, behind: ["fuse"], run: gatherOnce },
    // gradient sums, once a step
    ranks?.reduceSums &&
    { name: "reduce_sums", takes: ofRanks, behind: ["fuse", "tile_async_tp"], run: (g) => ranks.reduceSums!(g) },
    // one collective for the parameters of a block, one for their gradients
    ranks && {
      name: "group",
      takes: ofRanks,
      behind: ["fuse", "reduce_sums"],
      run: (g) => group(g, { maximaAtOnce: numbers.float8?.precomputed }),
    },
    // these travel while kernels run
    ranks && { name: "schedule", takes: ofRanks, behind: ["group"], run: (g) => schedule(g, ranks) },
    // where the rank stands
    ranks && { name: "rank", takes: ofRanks, gives: "rank", behind: ["schedule"], run: (g) => ranks.graphOfRank(g) },
    // copies where a kernel cannot follow strides
    {
      name: "materialize",
      takes: ["global", "rank"],
      gives: "placed",
      behind: ["fuse"],
      run: (g) => materialize(g, target),
    },
  ];
  return inOrder(list.filter((p): p is Pass => typeof p === "object"));
}

/** The graphs of a step as they run, and their memory. */
export interface Planned {
  readonly graphs: readonly Graph[];
  readonly plan: MemoryPlan;
  /** How what backward makes again was found, where a memory budget asked for it. */
  readonly search?: RematSearch;
}

/** A planned step with its native program. */
export interface Compiled extends Planned {
  readonly program: EncodedProgram;
}

/** Called after each pass with its name and what it made; `input` comes first. */
export type Watch = (pass: string, graph: Graph) => void;

/** What a step is compiled with: `threads` that its program will run on; `watch` sees each graph after each pass. `slots`: microbatches of
 * which the stages of a pipeline keep something at a time; `halves`: is their backward cut in two? `partitioned`: what has become of
 * graphs up to where ranks begin to differ, kept here for the next rank of the same mesh. */
export type CompileOptions = PassOptions & {
  readonly threads: number;
  readonly watch?: Watch;
  readonly slots?: number;
  readonly halves?: boolean;
  readonly partitioned?: Map<Graph, Graph>;
};

/** Compiles the graphs of a step.
 * @throws {MemoryBudgetError} when the memory budget cannot be kept.
 * @throws {Error} when a node cannot be run: which, and why. */
export function compileGraphs(graphs: readonly Graph[], options: CompileOptions): Compiled {
  const planned = planGraphs(graphs, options);
  return { ...planned, program: encode(planned.plan) };
}

/** All of {@linkcode compileGraphs} but the program: what asks for no kernels.
 * @throws {MemoryBudgetError} when the memory budget cannot be kept. */
export function planGraphs(graphs: readonly Graph[], options: CompileOptions): Planned {
  const { threads, target = cpu, remat: budget, slots, halves = false, partitioned } = options,
    watch = options.watch ?? printing(fromEnvironment());
  const { search, found } = budget?.mode === "memory_budget" ? searchRemat(graphs, options, budget) : {};
  const compiled = graphs.flatMap((graph) => {
    watch("input", verify(graph));
    const all = passes(options, found), first = all.findIndex((pass) => pass.takes.includes(graph.level));
    const run = (from: Graph, list: readonly Pass[]) =>
      list.reduce((before, pass) => {
        const after = runPass(pass, before);
        watch(pass.name, after);
        return after;
      }, from);
    const differs = Math.max(first, all.findIndex((pass) => pass.behind.includes("partition")));
    const alike = partitioned?.get(graph) ?? run(graph, all.slice(first, differs)),
      made = run(alike, all.slice(differs));
    partitioned?.set(graph, alike);
    const sections = sectionsOf(graph, made, halves);
    if (isStage(graph)) sections.forEach((section) => watch("cut_turn", verify(section)));
    return sections;
  });
  return { graphs: compiled, plan: memory(compiled, { target, threads, slots }), search };
}

/** Is it all that a stage does with a microbatch? */
const isStage = ({ slot, level }: Graph): boolean => slot !== undefined && level === "global";

/** A stage's forward and backward are runs of their own. */
const sectionsOf = (graph: Graph, made: Graph, halves: boolean): readonly Graph[] =>
  isStage(graph) ? Object.values(cutTurn(made, { halves })) : [made];

/** `remat` within a budget is a search around the passes behind it: what it tries is judged by the memory plan of all graphs. The stages of
 * a rank are searched one after another, each beside what was found for those before it, while those behind it make all again that they can.
 * Ranks that share a stage find the same, as their plans are of one size.
 * @returns nothing when there is nothing that could be made again.
 * @throws {MemoryBudgetError} when the budget cannot be kept. */
function searchRemat(
  graphs: readonly Graph[],
  options: CompileOptions,
  budget: RematBudget,
): { readonly search?: RematSearch; readonly found?: ReadonlyMap<string, Graph> } {
  const { target = cpu, threads, slots, halves = false } = options, list = passes({ ...options, remat: undefined });
  const at = list.findIndex((p) => p.name === "remat");
  const run = (graph: Graph, part: readonly Pass[]): Graph => part.reduce((g, p) => runPass(p, g), graph);
  // What ranks hand over is of one rank from the start.
  const from = (graph: Graph) => list.findIndex((pass) => pass.takes.includes(graph.level));
  const before = graphs.map((graph) => from(graph) < at ? run(graph, list.slice(from(graph), at)) : graph);
  const behind = (i: number, graph: Graph) =>
    sectionsOf(graphs[i], run(graph, list.slice(Math.max(at + 1, from(graphs[i])))), halves);
  const open = before.flatMap((graph, i) => from(graphs[i]) < at && new Forward(graph).needed.size > 0 ? [i] : []);
  if (open.length === 0) return {};
  const plan = (all: readonly (readonly Graph[])[]) => memory(all.flat(), { target, threads, slots });
  const plain = (graph: Graph, i: number) => behind(i, from(graphs[i]) < at ? remat(graph) : graph);
  const now = before.map((graph, i) => open.includes(i) ? behind(i, remat(graph, { mode: "full" })) : plain(graph, i));
  const searches = open.map((i) => {
    const judge: Judge = (tried) => {
      const judged = behind(i, tried), { arenaBytes, sections } = plan(now.with(i, judged));
      return {
        sections: judged.map((graph) => sections.find((s) => s.graph === graph)!),
        slots: isStage(graphs[i]) ? slots ?? 1 : undefined,
        arenaBytes,
      };
    };
    return new RematSearch(before[i], { judge, costs: target.costs });
  });
  const [search] = searches, found = new Map<string, Graph>();
  const most = () => plan(before.map(plain)).arenaBytes;
  const bytes = () => "bytes" in budget ? budget.bytes : shareOf(search.range().least, most(), budget.fraction);
  const within = searches.length === 1 ? budget : { mode: budget.mode, bytes: bytes() };
  for (const [k, i] of open.entries()) {
    const { graph } = searches[k].within(within);
    found.set(before[i].name, graph);
    now[i] = behind(i, graph);
  }
  return { search, found };
}

const shareOf = (least: number, most: number, fraction: number): number => least + fraction * (most - least);

/** All that `TITAN_PRINT` may name beside `all`: what was traced, and every pass. */
const PRINTABLE: readonly string[] = [
  "input",
  ...new Set((["forward", "step"] as const).flatMap((keepGathered) =>
    passes({
      ranks: {
        ...{ partition: (g) => g, holdStates: (g) => g, reduceSums: (g) => g, graphOfRank: (g) => g },
        ...{ ringAttention: true, asyncAxis: "tp", keepGathered },
      },
    }).map((p) => p.name)
  )),
  "cut_turn",
];

/** Prints the graphs that a text asks for: `fuse`, after that pass; `microbatch:fuse`, of that graph alone; `all`.
 * @throws {RangeError} when it names no pass. */
export function printing(wanted: string | undefined, out: (text: string) => void = console.error): Watch {
  if (!wanted) return () => {};
  const [pass, graphName] = wanted.split(":").reverse();
  if (pass !== "all" && !PRINTABLE.includes(pass)) {
    throw new RangeError(
      `Cannot print graphs after "${pass}" (TITAN_PRINT): there is no such pass\n  expected: all, or one of ${
        PRINTABLE.join(", ")
      }, perhaps behind the name of a graph: microbatch:fuse\n  fix: correct TITAN_PRINT`,
    );
  }
  return (made, graph) => {
    const isWanted = (pass === made || pass === "all") && (graphName === undefined || graphName === graph.name);
    if (isWanted) out(`# after ${made}\n${print(graph)}`);
  };
}

/** What the environment asks to print, where this process may read it. */
function fromEnvironment(): string | undefined {
  if (typeof Deno === "undefined") return undefined; // a browser
  const { state } = Deno.permissions.querySync({ name: "env", variable: "TITAN_PRINT" });
  return state === "granted" ? Deno.env.get("TITAN_PRINT") : undefined;
}
