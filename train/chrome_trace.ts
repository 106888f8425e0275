/** Recorded steps in Chrome's trace event format, which Perfetto (https://ui.perfetto.dev) and chrome://tracing open. A rank is a process
 * with a row for the host and one for each stream; on a stream, instructions lie inside of their modules, those inside of forward,
 * backward and update.
 * @module */
import { type InstructionTime, phaseOf, type StepProfile } from "./profile.ts";

/** A slice, or (`ph` M) the name of a process or row. Times are microseconds. */
export type TraceEvent =
  | {
    readonly ph: "X";
    readonly name: string;
    readonly cat: string;
    readonly ts: number;
    readonly dur: number;
    readonly pid: number;
    readonly tid: number;
    readonly args: Readonly<Record<string, string | number>>;
  }
  | {
    readonly ph: "M";
    readonly name: "process_name" | "thread_name" | "thread_sort_index";
    readonly pid: number;
    readonly tid: number;
    readonly args: Readonly<Record<string, string | number>>;
  };

// Of rank 0. Readers keep number 0 for the system's idle process and thread.
const PID = 1, HOST = 1, STREAM = 2;
const STREAM_NAMES = ["compute"];

/** The text of a trace file of recorded steps. */
export function traceJson(profiles: readonly StepProfile[]): string {
  const lines = traceEvents(profiles).map((event) => JSON.stringify(event));
  return `{"displayTimeUnit":"ms","traceEvents":[\n${lines.join(",\n")}\n]}\n`;
}

/** Recorded steps as events: names of rows, then slices, an outer one before those inside of it. Time starts with the first step. */
export function traceEvents(profiles: readonly StepProfile[]): TraceEvent[] {
  const start = 1e6 * profiles[0].startMs, offset = clockOffset(profiles) - start;
  const streams = [...new Set(profiles.flatMap((p) => p.instructions.map((i) => i.stream)))].sort();
  return [
    { ph: "M", name: "process_name", pid: PID, tid: HOST, args: { name: "rank 0" } },
    ...row(HOST, "host"),
    ...streams.flatMap((s) => row(STREAM + s, STREAM_NAMES[s] ?? `stream ${s}`)),
    ...profiles.flatMap((profile) => hostSlices(profile, start)),
    ...streams.flatMap((s) =>
      profiles.flatMap((p) => streamSlices(p.instructions.filter((i) => i.stream === s), offset))
    ),
  ];
}

function row(tid: number, name: string): TraceEvent[] {
  return [
    { ph: "M", name: "thread_name", pid: PID, tid, args: { name } },
    { ph: "M", name: "thread_sort_index", pid: PID, tid, args: { sort_index: tid } },
  ];
}

/** Nanoseconds to add to the native clock to get the host's: an instruction lies inside of the call that ran it, which leaves about the
 * time of a call's way to the executor and back, and this takes the middle of that. */
function clockOffset(profiles: readonly StepProfile[]): number {
  const least = Math.max(...profiles.map((p) => 1e6 * p.calledMs - p.instructions[0].beginNs));
  const most = Math.min(...profiles.map((p) => 1e6 * p.endMs - p.instructions.at(-1)!.endNs));
  return (least + most) / 2;
}

/** Eighths of a microsecond are exact in a double and in whole nanoseconds: an inner slice never sticks out by a rounding. */
const eighths = (ns: number): number => Math.round(ns / 125);

function slice(
  tid: number,
  [beginNs, endNs]: readonly [number, number],
  { name, cat, args = {} }: { name: string; cat: string; args?: Readonly<Record<string, string | number>> },
): TraceEvent {
  const begin = eighths(beginNs);
  return { ph: "X", name, cat, ts: begin / 8, dur: (eighths(endNs) - begin) / 8, pid: PID, tid, args };
}

function hostSlices({ step, startMs, calledMs, endMs }: StepProfile, start: number): TraceEvent[] {
  const [begin, called, end] = [startMs, calledMs, endMs].map((ms) => 1e6 * ms - start);
  return [
    slice(HOST, [begin, end], { name: `step ${step}`, cat: "host", args: { step } }),
    slice(HOST, [begin, called], { name: "wait for data", cat: "host" }),
    slice(HOST, [called, end], { name: "titan_program_run", cat: "host" }),
  ];
}

/** Names of the slices around an instruction, outermost first: `microbatch 1`, `backward`, `layers.3'`, `attention'`. */
function pathOf(instruction: InstructionTime): string[] {
  const { section, action, scope } = instruction, phase = phaseOf(instruction);
  const stroke = phase === "backward" ? "'" : "";
  const modules = scope.replace(/'$/, "").split(/\.(?!\d)/).filter((name) => name !== "");
  return [
    ...(section === "update" ? ["update"] : [`${section} ${action}`, phase]),
    ...modules.map((name) => `${name}${stroke}`),
  ];
}

/** The instructions of a stream inside of slices for what they have in common with their neighbours. */
function streamSlices(instructions: readonly InstructionTime[], offset: number): TraceEvent[] {
  const paths = instructions.map(pathOf), events: TraceEvent[] = [];
  const shares = (i: number, other: number, depth: number): boolean =>
    paths[other] !== undefined && paths[i].slice(0, depth + 1).every((name, d) => paths[other][d] === name);
  instructions.forEach((instruction, i) => {
    const { kernel, section, scope, flops, bytes, beginNs, endNs, stream } = instruction, cat = phaseOf(instruction);
    paths[i].forEach((name, depth) => {
      if (shares(i, i - 1, depth)) return; // the slice is open
      let last = i;
      while (shares(i, last + 1, depth)) last++;
      const span = [beginNs + offset, instructions[last].endNs + offset] as const;
      events.push(slice(STREAM + stream, span, { name, cat: depth === 0 ? section : cat }));
    });
    const args = { module: scope, flops, bytes };
    events.push(slice(STREAM + stream, [beginNs + offset, endNs + offset], { name: kernel, cat, args }));
  });
  return events;
}
