/** What a pass is, and in which order passes may stand: each says on which levels it works and what it comes behind.
 * @module */
import type { Graph, Level } from "./ir.ts";
import { verify } from "./verify.ts";

/** A pass over one graph. */
export interface Pass {
  /** What `TITAN_PRINT` calls it. */
  readonly name: string;
  /** Levels of the graphs that it takes. */
  readonly takes: readonly Level[];
  /** Level of what it gives; default: that of what it was given. */
  readonly gives?: Level;
  /** Passes that come before it, those of them that are in the list. */
  readonly behind: readonly string[];
  /** A pure function: the graph that is given stays as it is. */
  readonly run: (graph: Graph) => Graph;
}

/** The same passes, if they can run in this order on a graph of whole values.
 * @throws {Error} naming the pass that stands where it cannot, and what it expects. */
export function inOrder(passes: readonly Pass[]): readonly Pass[] {
  const names = passes.map((p) => p.name);
  let level: Level = "global";
  for (const [at, { name, takes, gives, behind }] of passes.entries()) {
    const refuse = (what: string, fix: string): never => {
      throw new Error(`Cannot run pass "${name}" at place ${at + 1} of ${names.join(", ")}: ${what}\n  fix: ${fix}`);
    };
    if (names.indexOf(name) !== at) refuse("it is in the list twice", "remove one of them");
    const late = behind.find((other) => names.indexOf(other) > at);
    if (late !== undefined) refuse(`expected behind "${late}"`, `move it behind "${late}"`);
    if (!takes.includes(level)) {
      const makers = passes.filter((p) => p.gives && takes.includes(p.gives)).map((p) => `"${p.name}"`).join(" or ");
      refuse(
        `the graph is of level ${level} there, expected ${takes.join(" or ")}`,
        makers === ""
          ? `add a pass that gives it`
          : `move it behind ${makers}, and in front of what comes after that level`,
      );
    }
    level = gives ?? level;
  }
  return passes;
}

/** Runs one pass, and checks what it has made.
 * @throws {Error} when that is not in order: which pass, rule and node. */
export function runPass({ name, takes, gives, run }: Pass, graph: Graph): Graph {
  if (!takes.includes(graph.level)) {
    throw new Error(
      `Cannot run pass "${name}" on graph "${graph.name}" of level ${graph.level}: expected ${takes.join(" or ")}`,
    );
  }
  const made = run(graph), expected = gives ?? graph.level;
  if (made.level !== expected) {
    throw new Error(`Pass "${name}" made graph "${graph.name}" of level ${made.level}: expected ${expected}`);
  }
  try {
    return verify(made);
  } catch (error) {
    throw new Error(`Pass "${name}" made a graph that it may not make. ${(error as Error).message}`, { cause: error });
  }
}
