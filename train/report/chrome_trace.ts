/** Recorded steps in Chrome's trace event format, which Perfetto (https://ui.perfetto.dev) and chrome://tracing open. A rank is a process
 * with a row for the host and one for each stream; on a stream, instructions lie inside of their modules, those inside of forward,
 * backward and update.
 * @module */
import { type InstructionTime, phaseOf, type StepProfile } from "./profile.ts";
import { modulesOn, scopeText } from "../../graph/print.ts";

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

// Readers keep number 0 for the system's idle process and thread.
const FIRST_PID = 1, HOST = 1, STREAM = 2;
const STREAM_NAMES = ["compute", "comm"];

/** The text of a trace file of recorded steps, those of each rank. */
export function traceJson(ranks: readonly (readonly StepProfile[])[]): string {
  const lines = traceEvents(ranks).map((event) => JSON.stringify(event));
  return `{"displayTimeUnit":"ms","traceEvents":[\n${lines.join(",\n")}\n]}\n`;
}

/** Recorded steps as events: names of rows, then slices, an outer one before those inside of it. Time starts with the first step of any
 * rank; ranks of one host share the native clock, those of others are as far apart as their clocks. */
export function traceEvents(ranks: readonly (readonly StepProfile[])[]): TraceEvent[] {
  const offsets = ranks.map(clockOffset);
  const start = Math.min(...ranks.map((profiles, rank) => 1e6 * profiles[0].startMs - offsets[rank]));
  return ranks.flatMap((profiles, rank) => rankEvents(profiles, rank, { offset: offsets[rank], start }));
}

/** From the native clock to the host's, and the native time at which the trace starts: nanoseconds. */
interface Clock {
  readonly offset: number;
  readonly start: number;
}

function rankEvents(profiles: readonly StepProfile[], rank: number, clock: Clock): TraceEvent[] {
  const pid = FIRST_PID + rank, streams = [...new Set(profiles.flatMap((p) => p.instructions.map((i) => i.stream)))];
  const name = (kind: "process_name" | "thread_name", tid: number, name: string): TraceEvent => ({
    ph: "M",
    name: kind,
    pid,
    tid,
    args: { name },
  });
  const row = (tid: number, text: string): TraceEvent[] => [
    name("thread_name", tid, text),
    { ph: "M", name: "thread_sort_index", pid, tid, args: { sort_index: tid } },
  ];
  return [
    name("process_name", HOST, `rank ${rank}`),
    ...row(HOST, "host"),
    ...streams.sort().flatMap((s) => row(STREAM + s, STREAM_NAMES[s] ?? `stream ${s}`)),
    ...profiles.flatMap((profile) => hostSlices(pid, profile, clock)),
    ...streams.flatMap((s) =>
      profiles.flatMap((p) => streamSlices(pid, p.instructions.filter((i) => i.stream === s), clock.start))
    ),
  ];
}

/** Nanoseconds to add to the native clock to get the host's: an instruction lies inside of the call that ran it, which leaves about the
 * time of a call's way to the executor and back, and this takes the middle of that. */
function clockOffset(profiles: readonly StepProfile[]): number {
  const least = Math.max(...profiles.map((p) => 1e6 * p.calledMs - firstNs(p)));
  const most = Math.min(...profiles.map((p) => 1e6 * p.endMs - lastNs(p)));
  return (least + most) / 2;
}

const firstNs = ({ instructions }: StepProfile): number => Math.min(...instructions.map((i) => i.beginNs));
const lastNs = ({ instructions }: StepProfile): number => Math.max(...instructions.map((i) => i.endNs));

/** Eighths of a microsecond are exact in a double and in whole nanoseconds: an inner slice never sticks out by a rounding. */
const eighths = (ns: number): number => Math.round(ns / 125);

function slice(
  pid: number,
  tid: number,
  [beginNs, endNs]: readonly [number, number],
  { name, cat, args = {} }: { name: string; cat: string; args?: Readonly<Record<string, string | number>> },
): TraceEvent {
  const begin = eighths(beginNs);
  return { ph: "X", name, cat, ts: begin / 8, dur: (eighths(endNs) - begin) / 8, pid, tid, args };
}

function hostSlices(
  pid: number,
  { step, startMs, calledMs, endMs }: StepProfile,
  { offset, start }: Clock,
): TraceEvent[] {
  const [begin, called, end] = [startMs, calledMs, endMs].map((ms) => 1e6 * ms - offset - start);
  return [
    slice(pid, HOST, [begin, end], { name: `step ${step}`, cat: "host", args: { step } }),
    slice(pid, HOST, [begin, called], { name: "wait for data", cat: "host" }),
    slice(pid, HOST, [called, end], { name: "titan_program_run", cat: "host" }),
  ];
}

/** Names of the slices around an instruction, outermost first: `microbatch 1`, `backward`, `layers.3'`, `attention'`. */
function pathOf(instruction: InstructionTime): string[] {
  const { section, action, scope } = instruction, phase = phaseOf(instruction);
  const stroke = phase === "backward" ? "'" : "";
  return [
    ...(section === "update" ? ["update"] : [`${section} ${action}`, phase]),
    ...modulesOn(scope).map((name) => `${name}${stroke}`),
  ];
}

/** The instructions of a stream inside of slices for what they have in common with their neighbours. */
function streamSlices(pid: number, instructions: readonly InstructionTime[], start: number): TraceEvent[] {
  const paths = instructions.map(pathOf), events: TraceEvent[] = [];
  const shares = (i: number, other: number, depth: number): boolean =>
    paths[other] !== undefined && paths[i].slice(0, depth + 1).every((name, d) => paths[other][d] === name);
  instructions.forEach((instruction, i) => {
    const { kernel, section, flops, bytes, beginNs, endNs, stream } = instruction, cat = phaseOf(instruction);
    paths[i].forEach((name, depth) => {
      if (shares(i, i - 1, depth)) return; // the slice is open
      let last = i;
      while (shares(i, last + 1, depth)) last++;
      const span = [beginNs - start, instructions[last].endNs - start] as const;
      events.push(slice(pid, STREAM + stream, span, { name, cat: depth === 0 ? section : cat }));
    });
    const args = { module: scopeText(instruction), flops, bytes };
    events.push(slice(pid, STREAM + stream, [beginNs - start, endNs - start], { name: kernel, cat, args }));
  });
  return events;
}
