/** Reads a binary program back, table by table.
 * @module */
import { type DType, elementTypes } from "../../../graph/element_types.ts";
import type { Wait } from "../../../graph/events.ts";
import type { KernelName } from "../../../graph/kernels.ts";
import { cpu } from "../../../graph/target/cpu.ts";
import type { Target } from "../../../graph/target/target.ts";

/** One operand of an instruction. */
export interface DecodedTensor {
  readonly space: (typeof SPACES)[number];
  readonly dtype: DType | "bytes";
  /** Bytes. */
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

/** One instruction. */
export interface DecodedInstruction {
  readonly kernel: KernelName;
  readonly scope: string;
  /** 0 for kernels, 1 for collectives. */
  readonly stream: number;
  /** Instructions of other streams that it waits for, numbered through the program. */
  readonly waits: readonly Wait[];
  readonly operands: readonly (DecodedTensor | undefined)[];
  readonly attrs: Readonly<Record<string, bigint | number | readonly (bigint | number)[]>>;
}

/** A program. */
export interface DecodedProgram {
  readonly threads: number;
  readonly arenaBytes: number;
  readonly inputBytes: number;
  readonly outputBytes: number;
  readonly slots: { readonly count: number; readonly bytes: number };
  readonly sections: readonly { readonly name: string; readonly instructions: readonly DecodedInstruction[] }[];
}

const SPACES = ["arena", "input", "output", "slot", "source"] as const;
const TYPES = Object.keys(elementTypes) as (DType | "bytes")[];

/** Decodes a program.
 * @param target that it is for, whose kernels it names. @throws {Error} when a table does not end where it should, or an instruction refers to something that is not there. */
export function decode(bytes: Uint8Array, { name, kernels }: Target = cpu): DecodedProgram {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const u32 = (at: number): number => view.getUint32(at, true),
    u64 = (at: number): number => Number(view.getBigUint64(at, true));
  const need = (ok: boolean, what: string): void => {
    if (!ok) throw new Error(`Cannot decode: ${what}`);
  };
  const range = <T>(count: number, make: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));
  need(new TextDecoder().decode(bytes.subarray(0, 8)) === "TITANPRG" && u32(8) === 3, "magic or format");
  const counts = range(7, (i) => u64(40 + 8 * i));
  need(new TextDecoder().decode(bytes.subarray(112, 128)) === name.padEnd(16, "\0"), "the device");
  // Where each table starts: tensors, sections, instructions, waits, operands, attributes, strings, end.
  const starts = [128];
  [128, 32, 48, 8, 4, 8, 1].forEach((size, i) => starts.push(starts[i] + Math.ceil(size * counts[i] / 8) * 8));
  need(starts[7] === bytes.length, `${starts[7]} bytes by its tables, ${bytes.length} in all`);
  const text = (at: number, length: number): string => {
    need(at + length <= counts[6], "a string ends behind the strings");
    return new TextDecoder().decode(bytes.subarray(starts[6] + at, starts[6] + at + length));
  };
  const tensors = range(counts[0], (i): DecodedTensor => {
    const at = starts[0] + 128 * i, rank = u32(at + 16), words = (from: number) => range(6, (d) => u64(from + 8 * d));
    const [dims, strides] = [words(at + 24), words(at + 72)];
    need(rank <= 6 && [...dims.slice(rank), ...strides.slice(rank)].every((n) => n === 0), `rank of tensor ${i}`);
    const [shape, own] = [dims.slice(0, rank), strides.slice(0, rank)];
    return { space: SPACES[u32(at)], dtype: TYPES[u32(at + 4)], offset: u64(at + 8), shape, strides: own };
  });
  const instruction = (i: number): DecodedInstruction => {
    const at = starts[2] + 48 * i, [kernel] = Object.entries(kernels).find(([, k]) => k.index === u32(at))!;
    const [firstOperand, numOperands, numWords, firstWord] = [u64(at + 8), u32(at + 16), u32(at + 20), u64(at + 24)];
    need(firstOperand + numOperands <= counts[4] && firstWord + numWords <= counts[5], `tables of instruction ${i}`);
    const operands = range(numOperands, (k) => {
      const index = u32(starts[4] + 4 * (firstOperand + k));
      need(index < tensors.length || index === 0xffffffff, `operand ${k} of instruction ${i}`);
      return index === 0xffffffff ? undefined : tensors[index];
    });
    let word = starts[5] + 8 * firstWord;
    const end = word + 8 * numWords, next = (): number => (word += 8) - 8;
    const scalar = (type: string) =>
      type.startsWith("i64") ? view.getBigInt64(next(), true) : view.getFloat64(next(), true);
    const attrs = Object.fromEntries(kernels[kernel].attributes.map(({ name, type }) => [
      name,
      type.endsWith("[]") ? range(Number(view.getBigInt64(next(), true)), () => scalar(type)) : scalar(type),
    ]));
    need(word === end, `attributes of instruction ${i}`);
    const scope = text(u32(at + 32), u32(at + 36));
    const firstWait = u32(at + 40), numWaits = u32(at + 44);
    need(firstWait + numWaits <= counts[3], `waits of instruction ${i}`);
    const waits = range(numWaits, (w): Wait => {
      const at = starts[3] + 8 * (firstWait + w);
      return { instruction: u32(at), inSlot: u32(at + 4) === 1 };
    });
    return { kernel: kernel as KernelName, scope, stream: u32(at + 4), waits, operands, attrs };
  };
  let first = 0;
  const sections = range(counts[1], (i) => {
    const at = starts[1] + 32 * i, count = u64(at + 16);
    need(u64(at + 8) === first, `first instruction of section ${i}`);
    first += count;
    return { name: text(u32(at), u32(at + 4)), instructions: range(count, (k) => instruction(first - count + k)) };
  });
  need(first === counts[2], "instructions outside of sections");
  const slots = { count: u64(96), bytes: u64(104) };
  return { threads: u32(12), arenaBytes: u64(16), inputBytes: u64(24), outputBytes: u64(32), slots, sections };
}
