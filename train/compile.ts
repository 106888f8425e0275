/** From graphs to a native program: the file to read first. Each pass is a pure function, each result can be printed with
 * `TITAN_PRINT=<pass>` (or `all`), and `memory` and `encode` end the list.
 * @module */
import type { Graph } from "../graph/ir.ts";
import { encode, type EncodedProgram } from "../graph/passes/encode.ts";
import { fuse } from "../graph/passes/fuse.ts";
import { materialize } from "../graph/passes/materialize.ts";
import { memory, type MemoryPlan } from "../graph/passes/memory.ts";
import { fullPrecision, type Precision, precision } from "../graph/passes/precision.ts";
import { Forward, remat, type RematPolicy } from "../graph/passes/remat.ts";
import { type RematBudget, type RematPoint, RematSearch } from "../graph/passes/remat_search.ts";
import { simplify } from "../graph/passes/simplify.ts";
import { tile } from "../graph/passes/tile.ts";
import { print } from "../graph/print.ts";

/** A pass over one graph. */
export interface Pass {
  readonly name: string;
  readonly run: (graph: Graph) => Graph;
}

/** What the passes are told. */
export interface PassOptions {
  /** What is multiplied and stored in bf16; default: nothing. */
  readonly precision?: Precision;
  /** What backward makes again; default: what is nearly free. */
  readonly remat?: RematPolicy | RematBudget;
}

/** The passes over each graph of a step, in order. `autodiff` comes before them: `traceMicrobatch` appends the gradient to the
 * forward graph that it traces.
 * @param found what a search for a memory budget has found; without it `remat` then makes again what is nearly free. */
export function passes(options: PassOptions = {}, found?: RematPoint): readonly Pass[] {
  const { remat: policy } = options;
  const rematGraph = (graph: Graph): Graph =>
    policy?.mode !== "memory_budget"
      ? remat(graph, policy)
      : found?.graph.name === graph.name
      ? found.graph
      : remat(graph);
  return [
    { name: "precision", run: (graph) => precision(graph, options.precision ?? fullPrecision) }, // bf16 where it is asked for
    { name: "simplify", run: simplify }, // common subexpressions, dead code, merged casts and reshapes
    { name: "tile", run: tile }, // head and cross-entropy in chunks: the logits are never whole
    { name: "remat", run: rematGraph }, // what is kept for backward, what is made again there
    { name: "fuse", run: fuse }, // joined products, norms with residuals, gradients added in place, map programs
    { name: "materialize", run: materialize }, // copies where a kernel cannot follow strides
  ];
}

/** The graphs of a step as they run, their memory, and the native program. */
export interface Compiled {
  readonly graphs: readonly Graph[];
  readonly plan: MemoryPlan;
  readonly program: EncodedProgram;
  /** How what backward makes again was found, where a memory budget asked for it. */
  readonly search?: RematSearch;
}

/** Called after each pass with its name and what it made; `input` comes first. */
export type Watch = (pass: string, graph: Graph) => void;

/** Compiles the graphs of a step.
 * @param options `threads` that the program will run on; `watch` sees each graph after each pass.
 * @throws {MemoryBudgetError} when the memory budget cannot be kept.
 * @throws {Error} when a node cannot be run: which, and why. */
export function compileGraphs(
  graphs: readonly Graph[],
  options: PassOptions & { readonly threads: number; readonly watch?: Watch },
): Compiled {
  const watch = options.watch ?? printing(), budget = options.remat;
  const search = budget?.mode === "memory_budget" ? rematSearch(graphs, options) : undefined;
  const found = budget?.mode === "memory_budget" ? search?.within(budget) : undefined;
  const compiled = graphs.map((graph) => {
    watch("input", graph);
    return passes(options, found).reduce((before, { name, run }) => {
      const after = run(before);
      watch(name, after);
      return after;
    }, graph);
  });
  const plan = memory(compiled, { threads: options.threads });
  return { graphs: compiled, plan, program: encode(plan), search };
}

/** `remat` within a budget is a search around the passes behind it: what it tries is judged by the memory plan of all graphs.
 * @returns `undefined` when there is nothing that could be made again. */
function rematSearch(
  graphs: readonly Graph[],
  options: PassOptions & { readonly threads: number },
): RematSearch | undefined {
  const list = passes({ precision: options.precision }), at = list.findIndex((p) => p.name === "remat");
  const run = (graph: Graph, part: readonly Pass[]): Graph => part.reduce((g, p) => p.run(g), graph);
  const before = graphs.map((graph) => run(graph, list.slice(0, at)));
  const graph = before.find((g) => new Forward(g).needed.size > 0);
  if (!graph) return;
  const others = new Map(before.map((g) => [g, g === graph ? g : run(g, list.slice(at))]));
  return new RematSearch(graph, (tried) => {
    const judged = run(tried, list.slice(at + 1));
    const { arenaBytes, sections } = memory(before.map((g) => g === graph ? judged : others.get(g)!), options);
    return { graph: judged, blocks: sections.find((s) => s.graph === judged)!.blocks, arenaBytes };
  });
}

/** Prints the graphs that `TITAN_PRINT` asks for. */
function printing(): Watch {
  const allowed = Deno.permissions.querySync({ name: "env", variable: "TITAN_PRINT" }).state === "granted";
  const wanted = allowed ? Deno.env.get("TITAN_PRINT") : undefined;
  return (pass, graph) => {
    if (wanted === pass || wanted === "all") console.error(`# after ${pass}\n${print(graph)}`);
  };
}
