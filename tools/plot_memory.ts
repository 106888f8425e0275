/**
 * Draws where the values of a microbatch lie in memory, and how long: `plot_memory.ts SVG`. From left to right go the instructions, from
 * top to bottom the bytes behind the parameters and their states; a box is a value. The picture in docs/memory.md is made by
 *
 *     npx -y deno run -A tools/plot_memory.ts docs/memory.svg
 *     npx -y deno fmt docs/memory.svg
 *
 * @module
 */
import type { Allocation } from "../graph/passes/memory.ts";
import { llama } from "../model/llama.ts";
import { planStep } from "../train/step_plan.ts";
import { label, sheet } from "./svg.ts";
import { runTool } from "./tool.ts";

/** A microbatch that is drawn. */
export interface Panel {
  readonly title: string;
  /** Number of its instructions. */
  readonly nodes: number;
  readonly allocations: readonly Allocation[];
}

const [width, left, right, top, panelHeight] = [960, 70, 944, 86, 190];
const COLORS = { kept: "#d1570b", transient: "#1f6feb", gathered: "#2da44e", scratch: "#8a63d2" };
const MEANING = {
  kept: "kept for backward",
  transient: "transient",
  gathered: "gathered parameters",
  scratch: "scratch of kernels",
};

/** The pictures of microbatches on one scale of bytes. */
export function memorySvg(title: string, panels: readonly Panel[]): string {
  const ends = ({ allocations }: Panel) => allocations.map(({ offset, bytes }) => offset + bytes);
  const start = (panel: Panel) => Math.min(...panel.allocations.map(({ offset }) => offset));
  const high = (panel: Panel) => Math.max(...ends(panel)) - start(panel), most = Math.max(...panels.map(high));
  const parts = [label(16, 28, title, 'font-size="17" font-weight="600"')];
  const uses = Object.keys(COLORS) as Allocation["use"][];
  let at = left, y = top;
  for (const use of uses.filter((use) => panels.some((p) => p.allocations.some((a) => a.use === use)))) {
    parts.push(`<rect x="${at}" y="46" width="12" height="12" fill="${COLORS[use]}"/>`);
    parts.push(label(at + 18, 57, MEANING[use]));
    at += 18 + 7.5 * MEANING[use].length + 22;
  }
  for (const panel of panels) {
    const { title, nodes, allocations } = panel, x = (node: number) => left + node / nodes * (right - left);
    const height = high(panel) / most * panelHeight, down = (bytes: number) => y + 12 + bytes / most * panelHeight;
    const bytes = `${(high(panel) / 2 ** 20).toFixed(1)} MiB`;
    parts.push(label(left, y + 4, title, 'font-weight="600"'), label(right, y + 4, bytes, 'text-anchor="end"'));
    parts.push(
      `<rect x="${left}" y="${y + 12}" width="${right - left}" height="${height.toFixed(1)}" fill="#f3f5f7"/>`,
    );
    for (const { offset, bytes, first, last, use } of allocations) {
      const size = `width="${(x(last + 1) - x(first)).toFixed(1)}" height="${(bytes / most * panelHeight).toFixed(1)}"`;
      parts.push(
        `<rect x="${x(first).toFixed(1)}" y="${down(offset - start(panel)).toFixed(1)}" ${size} fill="${
          COLORS[use]
        }" stroke="white" stroke-width="0.4"/>`,
      );
    }
    y += height + 44;
  }
  parts.push(label(left, y, "first instruction", 'font-size="12"'));
  parts.push(label(right, y, "last instruction", 'font-size="12" text-anchor="end"'));
  return sheet(title, [width, Math.ceil(y + 14)], parts);
}

/** A microbatch of a small Llama, 8 rows of 256 tokens. @param mode what backward makes again. */
export function panelOf(title: string, mode: "none" | "full"): Panel {
  const model = llama("debug", { dim: 256, numLayers: 4, numHeads: 8 });
  const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };
  const { plan } = planStep({
    ...{ model, optimizer, dtype: "f32", batch: 8, seqLen: 256, accumulation: 1, threads: 2, remat: { mode } },
  });
  const { graph, allocations } = plan.sections.find(({ graph }) => graph.name === "microbatch")!;
  return { title, nodes: graph.nodes.length, allocations };
}

if (import.meta.main) {
  Deno.exit(runTool("tools/plot_memory.ts SVG", Deno.args, (picture) => {
    const panels = [
      panelOf("values of forward are kept", "none"),
      panelOf("they are made again, block by block", "full"),
    ];
    Deno.writeTextFileSync(picture, memorySvg("Where the values of a microbatch lie, and how long", panels));
  }));
}
