/** What a run says about what backward makes again: a line of its header, and what memory budgets cost.
 * @module */
import { inBackward } from "../../graph/ir.ts";
import { recomputedFlops } from "../../graph/passes/remat.ts";
import type { RematPoint } from "../../graph/passes/remat_search.ts";
import type { Compiled } from "../compile.ts";

const count = (n: number): string => n.toLocaleString("en-US");

/** What backward makes again, as a share of the other FLOPs of a microbatch, in a line. */
export function rematText({ graphs }: Compiled): string {
  const flops = graphs.filter((g) => g.nodes.some(inBackward)).map(recomputedFlops);
  const [recomputed, other] = (["recomputed", "other"] as const).map((key) => flops.reduce((n, f) => n + f[key], 0));
  const percent = other > 0 ? 100 * recomputed / other : 0;
  return `recomputes ${percent > 0 && percent < 0.1 ? "less than 0.1" : percent.toFixed(1)} % of FLOPs`;
}

/** What memory budgets cost, a line each. */
export function frontierText(points: readonly RematPoint[]): string {
  const rows = points.map(({ arenaBytes, recomputedFlops, slowdown }) =>
    [
      `${count(arenaBytes)} B`,
      `${(recomputedFlops / 1e9).toFixed(1)} GFLOP`,
      `${(100 * (slowdown - 1)).toFixed(1)} %`,
    ] as const
  );
  const width = (k: 0 | 1 | 2) => Math.max(...rows.map((r) => r[k].length));
  const lines = rows.map((r) => `  ${r[0].padStart(width(0))}  ${r[1].padStart(width(1))}  ${r[2].padStart(width(2))}`);
  return `Memory budgets: the arena, what a microbatch makes again, and how much longer it is predicted to take\n${
    lines.join("\n")
  }`;
}
