/** Programs encoded by hand, for tests of the native side without a compiler. The format is that of `csrc/program.cpp`. */
import { type ElementType, elementTypes } from "../../graph/element_types.ts";
import { type KernelName, kernels } from "../../graph/kernels.ts";

export interface TestTensor {
  space?: "arena" | "input" | "output" | "slot";
  dtype?: ElementType;
  offset?: number;
  dims: number[];
  strides?: number[];
}

export interface TestInstruction {
  kernel: KernelName;
  /** Indices of tensors; -1 where an optional one is absent. */
  operands: number[];
  attributes?: bigint[];
  scope?: string;
}

export interface TestProgram {
  /** The device that it is for. */
  target?: string;
  threads?: number;
  arenaBytes?: number;
  inputBytes?: number;
  outputBytes?: number;
  /** How many slots there are at the end of the arena, and how large each is. */
  slots?: number;
  slotBytes?: number;
  tensors: TestTensor[];
  /** Sections by name, each with its instructions. */
  sections: Record<string, TestInstruction[]>;
}

/** The binary form of a program. */
export function encoded(program: TestProgram): Uint8Array<ArrayBuffer> {
  const strings: number[] = [];
  const string = (text: string): [number, number] => {
    const bytes = new TextEncoder().encode(text);
    strings.push(...bytes);
    return [strings.length - bytes.length, bytes.length];
  };
  const [tensors, sections, instructions, operands, attributes] = [
    new Words(),
    new Words(),
    new Words(),
    new Words(),
    new Words(),
  ];
  for (const { space = "arena", dtype = "f32", offset = 0, dims, strides = rowMajor(dims) } of program.tensors) {
    tensors.u32(["arena", "input", "output", "slot", "source"].indexOf(space), elementTypes[dtype].number).u64(offset);
    tensors.u32(dims.length, 0).u64(...padded(dims), ...padded(strides), 0);
  }
  let count = 0;
  for (const [name, list] of Object.entries(program.sections)) {
    sections.u32(...string(name)).u64(count, list.length, 0);
    count += list.length;
    for (const { kernel, operands: indices, attributes: words = [], scope = "" } of list) {
      const { index, collective } = kernels[kernel];
      instructions.u32(index, collective ? 1 : 0).u64(operands.bytes.length / 4).u32(indices.length, words.length);
      instructions.u64(attributes.bytes.length / 8).u32(...string(scope), 0, 0);
      operands.u32(...indices.map((index) => index >>> 0));
      for (const word of words) attributes.u64(word);
    }
  }
  const header = new Words();
  header.bytes.push(...new TextEncoder().encode("TITANPRG"));
  header.u32(3, program.threads ?? 1).u64(program.arenaBytes ?? 0, program.inputBytes ?? 0, program.outputBytes ?? 0);
  header.u64(program.tensors.length, Object.keys(program.sections).length, count, 0, operands.bytes.length / 4);
  header.u64(attributes.bytes.length / 8, strings.length, program.slots ?? 1, program.slotBytes ?? 0);
  header.bytes.push(...new TextEncoder().encode((program.target ?? "cpu").padEnd(16, "\0")));
  if (operands.bytes.length % 8) operands.u32(0);
  return Uint8Array.from(
    [header, tensors, sections, instructions, operands, attributes].flatMap(({ bytes }) => bytes).concat(strings),
  );
}

class Words {
  readonly bytes: number[] = [];
  u32(...values: number[]): this {
    for (const value of values) this.bytes.push(...new Uint8Array(Uint32Array.of(value).buffer));
    return this;
  }
  u64(...values: (number | bigint)[]): this {
    for (const value of values) this.bytes.push(...new Uint8Array(BigInt64Array.of(BigInt(value)).buffer));
    return this;
  }
}

function rowMajor(dims: number[]): number[] {
  return dims.map((_, i) => dims.slice(i + 1).reduce((product, dim) => product * dim, 1));
}

function padded(values: number[]): number[] {
  return [...values, ...Array(6 - values.length).fill(0)];
}
