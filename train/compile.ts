/** From graphs to a native program: the file to read first. Each pass is a pure function, each result can be printed with
 * `TITAN_PRINT=<pass>` (or `all`), and `memory` and `encode` end the list.
 * @module */
import type { Graph } from "../graph/ir.ts";
import { encode, type EncodedProgram } from "../graph/passes/encode.ts";
import { fuse } from "../graph/passes/fuse.ts";
import { materialize } from "../graph/passes/materialize.ts";
import { memory, type MemoryPlan } from "../graph/passes/memory.ts";
import { fullPrecision, type Precision, precision } from "../graph/passes/precision.ts";
import { remat, type RematPolicy } from "../graph/passes/remat.ts";
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
  readonly remat?: RematPolicy;
}

/** The passes over each graph of a step, in order. `autodiff` comes before them: `traceMicrobatch` appends the gradient to the
 * forward graph that it traces. */
export function passes(options: PassOptions = {}): readonly Pass[] {
  return [
    { name: "precision", run: (graph) => precision(graph, options.precision ?? fullPrecision) }, // bf16 where it is asked for
    { name: "simplify", run: simplify }, // common subexpressions, dead code, merged casts and reshapes
    { name: "tile", run: tile }, // head and cross-entropy in chunks: the logits are never whole
    { name: "remat", run: (graph) => remat(graph, options.remat) }, // what is kept for backward, what is made again there
    { name: "fuse", run: fuse }, // joined products, norms with residuals, gradients added in place, map programs
    { name: "materialize", run: materialize }, // copies where a kernel cannot follow strides
  ];
}

/** The graphs of a step as they run, their memory, and the native program. */
export interface Compiled {
  readonly graphs: readonly Graph[];
  readonly plan: MemoryPlan;
  readonly program: EncodedProgram;
}

/** Called after each pass with its name and what it made; `input` comes first. */
export type Watch = (pass: string, graph: Graph) => void;

/** Compiles the graphs of a step.
 * @param options `threads` that the program will run on; `watch` sees each graph after each pass.
 * @throws {Error} when a node cannot be run: which, and why. */
export function compileGraphs(
  graphs: readonly Graph[],
  options: PassOptions & { readonly threads: number; readonly watch?: Watch },
): Compiled {
  const watch = options.watch ?? printing();
  const compiled = graphs.map((graph) => {
    watch("input", graph);
    return passes(options).reduce((before, { name, run }) => {
      const after = run(before);
      watch(name, after);
      return after;
    }, graph);
  });
  const plan = memory(compiled, { threads: options.threads });
  return { graphs: compiled, plan, program: encode(plan) };
}

/** Prints the graphs that `TITAN_PRINT` asks for. */
function printing(): Watch {
  const allowed = Deno.permissions.querySync({ name: "env", variable: "TITAN_PRINT" }).state === "granted";
  const wanted = allowed ? Deno.env.get("TITAN_PRINT") : undefined;
  return (pass, graph) => {
    if (wanted === pass || wanted === "all") console.error(`# after ${pass}\n${print(graph)}`);
  };
}
