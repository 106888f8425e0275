/** Is everything in order that streams run beside each other? Vector clocks say what has surely ended when an instruction begins.
 * @module */
import type { Range, SlotTouch, Touch, Wait } from "../../graph/events.ts";
import { type Kernel, kernels } from "../../graph/kernels.ts";
import { dtypeBytes } from "../../graph/ir.ts";
import { decode, type DecodedInstruction, type DecodedTensor } from "./passes/decode.ts";

/** What an instruction touches, and waits for: instructions numbered through all sections. */
export interface Ordered extends SlotTouch {
  readonly waits: readonly Wait[];
}

/** Instructions by section. */
export type Sections = readonly (readonly Ordered[])[];

/** A run of a section, with the slot that it is given and the one that it may read; 0 unless given. */
export interface SectionRun {
  readonly section: number;
  readonly slot?: number;
  readonly source?: number;
}

/** One instruction of one action. */
interface Event {
  readonly name: string;
  readonly own: Ordered;
  readonly slots: readonly number[];
  /** How many of its stream have begun with it. */
  readonly position: number;
  /** By stream: how many have surely ended when it begins; on its own stream, it is counted too. */
  readonly clock: readonly number[];
}

const meet = (some: readonly Range[], others: readonly Range[]): boolean =>
  some.some((a) => others.some((b) => a.start < b.end && b.start < a.end));
const clash = (a: Touch, b: Touch): boolean =>
  meet(a.writes, b.writes) || meet(a.writes, b.reads) || meet(a.reads, b.writes);
const share = (a: readonly number[], b: readonly number[]): boolean => a.some((slot) => b.includes(slot));

/** What may run beside something that touches the same memory, when sections run in this order; empty where all is in order. */
export function unordered(sections: Sections, actions: readonly (number | SectionRun)[]): string[] {
  const streams = 1 + Math.max(0, ...sections.flat().map((i) => i.stream)), faults: string[] = [];
  const done = Array.from({ length: streams }, (): Event[] => []), ran = new Map<number, Event[]>();
  const begins = sections.map((_, s) => sections.slice(0, s).reduce((n, list) => n + list.length, 0));
  actions.forEach((run, action) => {
    const { section, slot = 0, source = slot } = typeof run === "number" ? { section: run } : run;
    const now = new Map<number, Event>(), slots = [slot, source];
    sections[section].forEach((own, i) => {
      const number = begins[section] + i, before = done[own.stream].at(-1);
      const isNow = (wait: number) => wait >= begins[section] && wait < number;
      const last = ({ instruction, inSlot }: Wait) =>
        ran.get(instruction)?.findLast((e) => !inSlot || share(e.slots, slots));
      const awaited = own.waits.map((wait) => isNow(wait.instruction) ? now.get(wait.instruction) : last(wait));
      const clocks = [before, ...awaited].filter((e): e is Event => e !== undefined).map((e) => e.clock);
      const clock = done.map((_, s) => Math.max(0, ...clocks.map((c) => c[s])));
      const position = clock[own.stream] = done[own.stream].length + 1;
      const event = { name: `${number} of action ${action}`, own, slots, position, clock };
      done.forEach((list, s) => {
        if (s === own.stream) return;
        const beside = list.slice(clock[s]).filter((other) =>
          clash(own, other.own) || share(slots, other.slots) && clash(own.inSlot, other.own.inSlot)
        );
        faults.push(...beside.map((other) => `${event.name} may run beside ${other.name}`));
      });
      done[own.stream].push(event);
      now.set(number, event);
    });
    for (const [number, event] of now) ran.set(number, [...ran.get(number) ?? [], event]);
  });
  return faults;
}

/** The instructions of an encoded program. */
export function orderOf(bytes: Uint8Array): Sections {
  return decode(bytes).sections.map(({ instructions }) => instructions.map(touched));
}

function touched(instruction: DecodedInstruction): Ordered {
  const { kernel, stream, waits, operands, attrs } = instruction, { inputs } = kernels[kernel] as Kernel;
  const fixed = inputs.filter((o) => !o.variadic).length, groups = inputs.length - fixed;
  const numInputs = groups === 0 ? fixed : fixed + groups * Number(attrs.n ?? attrs.inputs ?? variadic(instruction));
  const touch = (...spaces: string[]): Touch => {
    const ranges = (list: readonly (DecodedTensor | undefined)[]) =>
      list.filter((o) => o && spaces.includes(o.space)).map(rangeOf);
    return { stream, reads: ranges(operands), writes: ranges(operands.slice(numInputs)) };
  };
  return { ...touch("arena"), inSlot: touch("slot", "source"), waits };
}

/** How many operands a group takes that no attribute counts: what the others leave. */
function variadic({ kernel, operands }: DecodedInstruction): number {
  const { inputs, outputs, scratch } = kernels[kernel] as Kernel;
  return operands.length - (inputs.length - 1) - outputs.length - (scratch ? 1 : 0);
}

function rangeOf(tensor: DecodedTensor | undefined): Range {
  const { dtype, offset, shape, strides } = tensor!, size = dtype === "bytes" ? 1 : dtypeBytes[dtype];
  const last = shape.reduce((sum, n, d) => sum + (n - 1) * strides[d], 0);
  return { start: offset, end: shape.includes(0) ? offset : offset + (last + 1) * size };
}
