/** Pass `encode`: the planned graphs of a step as one binary program for `titan_program_create`; the format is in csrc/program.cpp.
 * @module */
import { opOf } from "../builder.ts";
import { elementTypes } from "../element_types.ts";
import { type Range, type SlotTouch, type Wait, waitsOf } from "../events.ts";
import { stateUse } from "../facts.ts";
import { type DType, dtypeBytes, type Node, numel, type Origin } from "../ir.ts";
import { flopsOf } from "../op.ts";
import { kernelViews, type Place } from "../place.ts";
import { scopeText } from "../print.ts";
import { callOf, type KernelCall, type Target } from "../target/target.ts";
import { packed, type View } from "../view.ts";
import type { HostSlot, MemoryPlan, SectionMemory } from "./memory.ts";

const FORMAT = 3;
/** Most bytes of the name of a target. */
const NAME_BYTES = 16;
const SPACES = { arena: 0, input: 1, output: 2, slot: 3, source: 4 } as const;
const ABSENT = 0xffffffff;
const MAX_RANK = 6;

/** A program and where the host finds what. */
export interface EncodedProgram {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly sections: readonly EncodedSection[];
}

/** One section: its number in actions, and its packed host buffers. */
export interface EncodedSection {
  readonly name: string;
  readonly index: number;
  readonly inputs: readonly HostSlot[];
  readonly outputs: readonly HostSlot[];
  readonly inputBytes: number;
  readonly outputBytes: number;
  /** What each instruction runs, for error messages and profiles. */
  readonly instructions: readonly InstructionInfo[];
}

/** What an instruction runs, and how much that is. */
export interface InstructionInfo extends Pick<Origin, "scope" | "phase"> {
  /** Its name in `csrc/kernels.def`. */
  readonly kernel: string;
  /** Floating point operations. */
  readonly flops: number;
  /** Bytes of its tensors, each counted once and elements that strides repeat once too; scratch is not counted. */
  readonly bytes: number;
}

interface Operand {
  readonly space: keyof typeof SPACES;
  readonly dtype: DType | "bytes";
  /** Bytes. */
  readonly offset: number;
  readonly view: View;
}

/** Where an instruction comes from. */
type From = Pick<Origin, "scope" | "phase">;

interface Instruction extends From {
  readonly kernel: string;
  /** 0 for kernels, 1 for collectives. */
  readonly stream: number;
  readonly flops: number;
  readonly operands: readonly (Operand | undefined)[];
  /** Those of the operands that it writes. */
  readonly written: readonly Operand[];
  readonly attrs: KernelCall["attrs"];
}

const fromOf = ({ scope, phase }: Node): From => ({ scope, phase });

/** Bytes that a tensor takes, where every element is there once. */
function touchedBytes(operand: Operand | undefined): number {
  if (!operand || operand.dtype === "bytes") return 0;
  const { shape, strides } = operand.view;
  return dtypeBytes[operand.dtype] * numel(shape.filter((_, d) => strides[d] !== 0));
}

/** The bytes of its space from an operand's first to its last. */
function rangeOf({ dtype, offset, view: { shape, strides } }: Operand): Range {
  const last = shape.reduce((sum, n, d) => sum + (n - 1) * strides[d], 0),
    size = elementTypes[dtype].bits / 8;
  return { start: offset, end: shape.includes(0) ? offset : offset + (last + 1) * size };
}

/** What an instruction touches of the arena, and of slots. What it writes it may read as well. */
function touchOf({ stream, operands, written }: Instruction): SlotTouch {
  const ranges = (list: readonly (Operand | undefined)[], spaces: readonly Operand["space"][]): Range[] =>
    list.filter((o): o is Operand => o !== undefined && spaces.includes(o.space)).map(rangeOf);
  const touch = (...spaces: Operand["space"][]) => ({
    stream,
    reads: ranges(operands, spaces),
    writes: ranges(written, spaces),
  });
  return { ...touch("arena"), inSlot: touch("slot", "source") };
}

/** Encodes a memory plan with its graphs, one section a graph.
 * @throws {Error} when a kernel cannot take a node's operands where they lie: which node, and why. */
export function encode(plan: MemoryPlan): EncodedProgram {
  const sections = plan.sections.map((section) => ({ section, instructions: instructionsOf(section, plan) }));
  const writer = new ProgramWriter(plan.target), waits = waitsOf(sections.map((s) => s.instructions.map(touchOf)));
  sections.forEach(({ section, instructions }, i) => writer.section(section.graph.name, instructions, waits[i]));
  return {
    bytes: writer.finish(plan, sections.map((s) => s.section)),
    sections: sections.map(({ section: s, instructions }, index) => ({
      name: s.graph.name,
      index,
      inputs: s.inputs,
      outputs: s.outputs,
      inputBytes: s.inputBytes,
      outputBytes: s.outputBytes,
      instructions: instructions.map(({ kernel, scope, phase, flops, operands }) => ({
        kernel,
        scope,
        phase,
        flops,
        bytes: operands.reduce((sum, o) => sum + touchedBytes(o), 0),
      })),
    })),
  };
}

/** The instructions of a graph. */
function instructionsOf(section: SectionMemory, { target, states }: MemoryPlan): Instruction[] {
  const { graph, places } = section;
  const inputAt = new Map(section.inputs.map((s) => [s.name, s.offset]));
  const operandAt = ({ base, view }: Place, taken: View = view): Operand => {
    const { space, offset } = base.kind === "input"
      ? { space: "input", offset: inputAt.get(base.names[0])! } as const
      : section.spotOf(base);
    return { space, dtype: base.dtype, offset: offset + taken.offset * dtypeBytes[base.dtype], view: taken };
  };
  const copy = (from: From, source: Operand, to: Operand): Instruction => ({
    ...running(target, target.copy),
    ...from,
    flops: 0,
    operands: [source, to],
    written: [to],
  });
  const instructions: Instruction[] = [];
  for (const node of graph.nodes) {
    if (stateUse(node) === "reads" || places.isView(node) || section.inPlaceAssigns.has(node)) continue;
    if (opOf(node.op).joins) {
      for (const { value, place } of places.copiedPieces(node)) {
        instructions.push(copy(fromOf(node), operandAt(places.of.get(value)!), operandAt(place)));
      }
      continue;
    }
    instructions.push(...lowerNode(node, { section, target, states, operandAt }));
  }
  for (const { name, value, offset } of section.outputs) {
    const to: Operand = { space: "output", dtype: value.dtype, offset, view: packed(value.shape) };
    instructions.push(copy({ scope: `output ${name}`, phase: "forward" }, operandAt(places.of.get(value)!), to));
  }
  return instructions;
}

/** The kernel of a call, and where it runs.
 * @throws {TypeError} when the target has none of that name. */
function running(
  { name, kernels }: Target,
  { kernel, attrs }: KernelCall,
): Pick<Instruction, "kernel" | "stream" | "attrs"> {
  const known = kernels[kernel];
  if (!known) throw new TypeError(`Cannot run kernel "${kernel}": expected one of target "${name}"`);
  return { kernel, stream: known.collective ? 1 : 0, attrs };
}

/** The section of a node, and where its operands lie. */
interface Surroundings extends Pick<MemoryPlan, "target" | "states"> {
  readonly section: SectionMemory;
  readonly operandAt: (place: Place, view?: View) => Operand;
}

/** The instructions of a node: one, or one for each state that it changes.
 * @throws {Error} when its kernel cannot take an operand where it lies. */
function lowerNode(node: Node, surroundings: Surroundings): Instruction[] {
  const { section, target, operandAt } = surroundings, op = opOf(node.op), call = callOf(target, node);
  if (op.states) return statePieces(node, call, surroundings);
  const all = [...node.inputs, ...node.outputs];
  const views = kernelViews(node, all.map((v) => section.places.of.get(v)!.view), target);
  if (typeof views === "string") {
    throw new Error(`Cannot run "${node.op}" of ${scopeText(node) || "the graph"}: ${views}`);
  }
  const given = all.map((v, i) => operandAt(section.places.of.get(v)!, views[i])), { length } = node.inputs;
  const written = given.slice(length);
  const operands: (Operand | undefined)[] = call.operands?.(given.slice(0, length), written) ?? given;
  const runs = running(target, call);
  if (target.kernels[call.kernel].scratch) {
    const { offset, bytes } = section.scratchOf(node) ?? { offset: 0, bytes: 0 };
    const scratch: Operand = { space: "arena", dtype: "bytes", offset, view: packed([bytes]) };
    operands.push(scratch);
    written.push(scratch);
  }
  return [{ ...runs, ...fromOf(node), flops: flopsOf(op, node), operands, written }];
}

/** A value goes into its states piece by piece: they need not be neighbours. */
function statePieces(
  node: Node,
  call: KernelCall,
  { section, target, states, operandAt }: Surroundings,
): Instruction[] {
  const [value] = node.inputs, place = section.places.of.get(value)!;
  let row = 0;
  return (node.attrs.states as string[]).map((name) => {
    const { state } = states.get(name)!;
    const rows = state.shape[0] ?? 1;
    const isOne = (node.attrs.states as string[]).length === 1;
    const view: View = isOne ? place.view : {
      offset: place.view.offset + row * place.view.strides[0],
      shape: state.shape,
      strides: place.view.strides,
    };
    row += rows;
    const base = { kind: "state", dtype: state.dtype, size: 0, names: [name] } as const;
    const to = operandAt({ base, view: packed(view.shape) });
    const flops = stateUse(node) === "adds" ? numel(view.shape) : 0;
    return { ...running(target, call), ...fromOf(node), flops, operands: [operandAt(place, view), to], written: [to] };
  });
}

/** Grows the tables of a program. */
class ProgramWriter {
  readonly #tensors = new Map<string, { index: number; operand: Operand }>();
  readonly #sections: { name: [number, number]; first: number; count: number }[] = [];
  readonly #instructions: {
    at: Instruction;
    scope: [number, number];
    operands: [number, number];
    attrs: [number, number];
    waits: [number, number];
  }[] = [];
  readonly #waits: Wait[] = [];
  readonly #operands: number[] = [];
  readonly #attributes: { value: number | bigint; real: boolean }[] = [];
  readonly #strings: number[] = [];
  readonly #texts = new Map<string, [number, number]>();

  constructor(readonly target: Target) {}

  /** @param waits for each instruction, those of the program that it waits for. */
  section(name: string, instructions: readonly Instruction[], waits: readonly (readonly Wait[])[]): void {
    this.#sections.push({ name: this.#text(name), first: this.#instructions.length, count: instructions.length });
    for (const [i, at] of instructions.entries()) {
      const operands: [number, number] = [this.#operands.length, at.operands.length];
      at.operands.forEach((o) => this.#operands.push(o ? this.#tensor(o, at) : ABSENT));
      const first = this.#attributes.length;
      this.#attrs(at);
      this.#instructions.push({
        at,
        scope: this.#text(scopeText(at)),
        operands,
        attrs: [first, this.#attributes.length - first],
        waits: [this.#waits.length, waits[i].length],
      });
      this.#waits.push(...waits[i]);
    }
  }

  #attrs({ kernel, attrs }: Instruction): void {
    for (const { name, type } of this.target.kernels[kernel].attributes) {
      const value = attrs[name], real = type.startsWith("f64");
      if (value === undefined) throw new Error(`Cannot encode "${kernel}": attribute "${name}" is missing`);
      if (typeof value === "object") {
        this.#attributes.push({ value: value.length, real: false }, ...value.map((v) => ({ value: v, real })));
      } else this.#attributes.push({ value, real });
    }
  }

  #text(text: string): [number, number] {
    const known = this.#texts.get(text);
    if (known) return known;
    const bytes = new TextEncoder().encode(text);
    const at: [number, number] = [this.#strings.length, bytes.length];
    this.#strings.push(...bytes);
    this.#texts.set(text, at);
    return at;
  }

  #tensor(operand: Operand, at: Instruction): number {
    const { space, dtype, offset, view } = operand, rank = view.shape.length;
    if (rank > MAX_RANK) {
      throw new Error(
        `Cannot run "${at.kernel}" of ${
          scopeText(at) || "the graph"
        }: an operand has ${rank} dims, at most ${MAX_RANK}; merge some`,
      );
    }
    const key = `${space} ${dtype} ${offset} ${view.shape} ${view.strides}`;
    let known = this.#tensors.get(key);
    if (!known) this.#tensors.set(key, known = { index: this.#tensors.size, operand });
    return known.index;
  }

  #name(): Uint8Array {
    const { name } = this.target, bytes = new TextEncoder().encode(name);
    if (bytes.length <= NAME_BYTES) return bytes;
    throw new RangeError(`Cannot encode the name of target "${name}": ${bytes.length} bytes, at most ${NAME_BYTES}`);
  }

  finish(plan: MemoryPlan, sections: readonly SectionMemory[]): Uint8Array<ArrayBuffer> {
    const pad = (n: number): number => Math.ceil(n / 8) * 8;
    const bytes = 128 + 128 * this.#tensors.size + 32 * this.#sections.length + 48 * this.#instructions.length +
      8 * this.#waits.length + pad(4 * this.#operands.length) + 8 * this.#attributes.length + pad(this.#strings.length);
    const view = new DataView(new ArrayBuffer(bytes));
    let at = 0;
    const u32 = (x: number) => (view.setUint32(at, x, true), at += 4);
    const u64 = (x: number | bigint) => (view.setBigInt64(at, BigInt(x), true), at += 8);
    const f64 = (x: number) => (view.setFloat64(at, x, true), at += 8);
    for (const c of new TextEncoder().encode("TITANPRG")) view.setUint8(at++, c);
    u32(FORMAT);
    u32(plan.threads);
    u64(plan.arenaBytes);
    u64(Math.max(0, ...sections.map((s) => s.inputBytes)));
    u64(Math.max(0, ...sections.map((s) => s.outputBytes)));
    u64(this.#tensors.size);
    u64(this.#sections.length);
    u64(this.#instructions.length);
    u64(this.#waits.length);
    u64(this.#operands.length);
    u64(this.#attributes.length);
    u64(this.#strings.length);
    u64(plan.slots.count);
    u64(plan.slots.bytes);
    for (const c of this.#name()) view.setUint8(at++, c);
    at = 128;
    for (const { operand: { space, dtype, offset, view: v } } of this.#tensors.values()) {
      const end = at + 128;
      u32(SPACES[space]);
      u32(elementTypes[dtype].number);
      u64(offset);
      u32(v.shape.length);
      u32(0);
      for (let d = 0; d < MAX_RANK; d++) u64(v.shape[d] ?? 0);
      for (let d = 0; d < MAX_RANK; d++) u64(v.strides[d] ?? 0);
      at = end;
    }
    for (const { name, first, count } of this.#sections) {
      name.forEach(u32);
      u64(first);
      u64(count);
      u64(0);
    }
    for (const { at, scope, operands, attrs, waits } of this.#instructions) {
      u32(this.target.kernels[at.kernel].index);
      u32(at.stream);
      u64(operands[0]);
      u32(operands[1]);
      u32(attrs[1]);
      u64(attrs[0]);
      scope.forEach(u32);
      waits.forEach(u32);
    }
    for (const { instruction, inSlot } of this.#waits) {
      u32(instruction);
      u32(inSlot ? 1 : 0);
    }
    this.#operands.forEach(u32);
    at = pad(at);
    for (const { value, real } of this.#attributes) real ? f64(Number(value)) : u64(value);
    this.#strings.forEach((c) => view.setUint8(at++, c));
    return new Uint8Array(view.buffer);
  }
}
