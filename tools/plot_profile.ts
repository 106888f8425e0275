/**
 * Draws recorded steps one below the other, on one scale of time: `plot_profile.ts SVG TITLE "STEP=TRACE_JSON"...`. Of each trace
 * it shows what rank 0 did: kernels in the upper row, and where there are any, collectives in the lower one. A step of the picture in README.md is recorded by
 *
 *     npx -y deno task train --nproc 2 --mesh dp_shard=2 --device.threads 1 --comm.simulate "1GB/s,5us" --model.dim 512 \
 *       --model.n_layers 8 --model.n_heads 8 --model.ffn_hidden_dim 1376 --model.vocab_size 8192 --training.seq_len 512 \
 *       --training.local_batch_size 2 --training.mixed_precision_param float32 --training.steps 6 --validation.no_enable \
 *       --profiling.enable_profiling --profiling.profile_freq 6 --profiling.profiler_warmup 1 --profiling.profiler_active 1
 *
 * or with `--mesh tp=2 --training.local_batch_size 4`.
 * @module
 */
import type { TraceEvent } from "../train/report/chrome_trace.ts";
import { commMs } from "../train/report/profile.ts";
import { label, sheet, TEXT, ticks } from "./svg.ts";
import { runTool } from "./tool.ts";

/** An instruction of a trace. Times are nanoseconds from the first one. */
export interface Instruction {
  readonly name: string;
  /** `forward`, `backward` or `update`. */
  readonly phase: string;
  readonly module: string;
  /** 0: kernels. 1: collectives. */
  readonly stream: number;
  readonly beginNs: number;
  readonly endNs: number;
}

/** One recorded step. */
export interface Panel {
  readonly title: string;
  readonly instructions: readonly Instruction[];
}

/** The instructions of rank 0 in the text of a trace file.
 * @throws {SyntaxError} when it holds none. */
export function instructionsOf(trace: string): Instruction[] {
  const { traceEvents } = JSON.parse(trace) as { traceEvents: TraceEvent[] };
  const streams = new Map(
    traceEvents.flatMap((e) => e.name === "thread_name" && e.pid === 1 ? [[e.tid, e.args.name]] : []),
  );
  const slices = traceEvents.filter((e) => e.ph === "X").filter((e) => e.pid === 1 && e.args.module !== undefined);
  if (slices.length === 0) throw new SyntaxError("Cannot draw a profile: the file has no instructions; is it a trace?");
  const start = Math.min(...slices.map((e) => e.ts));
  return slices.map((e) => ({
    name: e.name,
    phase: e.cat,
    module: String(e.args.module),
    stream: streams.get(e.tid) === "comm" ? 1 : 0,
    beginNs: 1000 * (e.ts - start),
    endNs: 1000 * (e.ts + e.dur - start),
  }));
}

const [width, left, right, head, rowHeight, gap] = [960, 72, 944, 72, 24, 2];
const colors: Readonly<Record<string, string>> = {
  forward: "#1f6feb",
  backward: "#d1570b",
  update: "#57606a",
  all_gather: "#2da44e",
  reduce_scatter: "#8a63d2",
  all_reduce: "#bf8700",
  ring_shift: "#0a7ea4",
  all_to_all: "#bc4c00",
  exchange: "#6e7781",
};

/** Neighbours of one kind, without a gap that a person would see. */
interface Run {
  readonly kind: string;
  readonly block: string;
  readonly begin: number;
  readonly end: number;
}

/** The pictures of steps, below a title and a legend. */
export function profileSvg(title: string, panels: readonly Panel[]): string {
  const total = Math.max(...panels.flatMap((p) => p.instructions.map((i) => i.endNs)));
  const x = (ns: number): number => left + ns / total * (right - left);
  const kinds = new Set(panels.flatMap((p) => p.instructions.map(kindOf)));
  const parts = [label(16, 28, title, 'font-size="17" font-weight="600"')];
  let at = left;
  for (const name of Object.keys(colors).filter((kind) => kinds.has(kind))) {
    parts.push(`<rect x="${at}" y="46" width="12" height="12" fill="${colors[name]}"/>`, label(at + 18, 57, name));
    at += 18 + 7.5 * name.length + 22;
  }
  const rows = panels.some(({ instructions }) => instructions.some(({ stream }) => stream === 1))
    ? ["compute", "comm"]
    : ["compute"];
  const panelHeight = 40 + rows.length * (rowHeight + gap);
  panels.forEach(({ title, instructions }, i) => {
    const top = head + i * panelHeight;
    parts.push(label(left, top + 24, title, 'font-weight="600"'));
    parts.push(label(right, top + 24, summary(instructions), 'text-anchor="end"'));
    rows.forEach((name, stream) => {
      const y = top + 34 + stream * (rowHeight + gap);
      parts.push(label(left - 8, y + 16, name, 'text-anchor="end" font-size="12"'));
      parts.push(`<rect x="${left}" y="${y}" width="${right - left}" height="${rowHeight}" fill="#f3f5f7"/>`);
      for (const run of runsOf(instructions.filter((j) => j.stream === stream), total / (right - left) / 2)) {
        const [begin, end] = [x(run.begin), x(run.end)], size = `width="${Math.max(end - begin, 0.5).toFixed(1)}"`;
        parts.push(
          `<rect x="${begin.toFixed(1)}" y="${y}" ${size} height="${rowHeight}" fill="${colors[run.kind] ?? TEXT}"/>`,
        );
        if (end - begin < 8 * run.block.length + 4) continue;
        const style = 'text-anchor="middle" font-size="11" fill="white"';
        parts.push(label((begin + end) / 2, y + 16, run.block, style));
      }
    });
  });
  const bottom = head + panels.length * panelHeight + 12;
  parts.push(`<path d="M${left} ${bottom}H${right}" stroke="${TEXT}"/>`);
  for (const ms of ticks(0, total / 1e6, 8)) {
    parts.push(label(x(ms * 1e6), bottom + 18, ms === 0 ? "0 ms" : String(ms), 'text-anchor="middle" font-size="12"'));
  }
  return sheet(title, [width, bottom + 32], parts);
}

const kindOf = ({ name, phase, stream }: Instruction): string => stream === 0 ? phase : name;

/** The number of the block that a module lies in, or nothing. */
const blockOf = ({ module }: Instruction): string => module.match(/^\w+\.(\d+)/)?.[1] ?? "";

function runsOf(instructions: readonly Instruction[], gap: number): Run[] {
  const runs: Run[] = [];
  for (const instruction of instructions) {
    const { beginNs: begin, endNs: end, stream } = instruction, before = runs.at(-1);
    const run = { kind: kindOf(instruction), block: blockOf(instruction), begin, end };
    const goesOn = stream === 0 && before?.kind === run.kind && before.block === run.block && begin - before.end < gap;
    if (goesOn) runs[runs.length - 1] = { ...before, end };
    else runs.push(run);
  }
  return runs;
}

function summary(instructions: readonly Instruction[]): string {
  const { all, exposed } = commMs([{ instructions }]), ms = Math.max(...instructions.map((i) => i.endNs)) / 1e6;
  if (all === 0) return `${ms.toFixed(0)} ms`;
  const share = (100 * (1 - exposed / all)).toFixed(0);
  return `${ms.toFixed(0)} ms; collectives ${all.toFixed(0)} ms, ${share} % of it beside kernels`;
}

if (import.meta.main) {
  Deno.exit(runTool("tools/plot_profile.ts SVG TITLE PANEL=TRACE_JSON ...", Deno.args, (picture, title, ...traces) => {
    if (traces.length === 0) throw new SyntaxError("There is no panel: expected at least one PANEL=TRACE_JSON");
    const panels = traces.map((text) => {
      const at = text.lastIndexOf("=");
      return { title: text.slice(0, at), instructions: instructionsOf(Deno.readTextFileSync(text.slice(at + 1))) };
    });
    Deno.writeTextFileSync(picture, profileSvg(title, panels));
  }));
}
