/** Host memory that native calls read and fill: structs of `titan.h`, and the list of actions of a run.
 * Offsets are bytes. Everything is allocated when it is made, nothing when it is used.
 * @module */
import { structs } from "./symbols.ts";

/** A struct of `titan.h`. */
export type StructName = keyof typeof structs;
/** A field of a struct. */
export type FieldName<N extends StructName> = keyof (typeof structs)[N]["fields"] & string;
interface Field {
  readonly offset: number;
  readonly type: "i32" | "u32" | "i64" | "u64" | "f64" | "text";
  readonly length: number;
}

/** One or more C structs, one after the other. */
export class Struct<N extends StructName> {
  /** The memory to pass to a native call. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** How many. */
  readonly count: number;
  readonly #name: N;
  readonly #view: DataView<ArrayBuffer>;

  /** All zeros. */
  constructor(name: N, count = 1) {
    this.#name = name;
    this.count = count;
    this.bytes = new Uint8Array(structs[name].bytes * count);
    this.#view = new DataView(this.bytes.buffer);
  }

  /** A number; 64-bit ones have to be exact in a double. */
  get(field: FieldName<N>, index = 0): number {
    const { at, type } = this.#find(field, index);
    switch (type) {
      case "i32":
        return this.#view.getInt32(at, true);
      case "u32":
        return this.#view.getUint32(at, true);
      case "i64":
        return Number(this.#view.getBigInt64(at, true));
      case "u64":
        return Number(this.#view.getBigUint64(at, true));
      case "f64":
        return this.#view.getFloat64(at, true);
      case "text":
        throw new TypeError(`${this.#name}.${field} is a text\n  expected: a number\n  fix: use text("${field}")`);
    }
  }

  /** Writes a number. */
  set(field: FieldName<N>, value: number, index = 0): void {
    const { at, type } = this.#find(field, index);
    if (type === "f64") this.#view.setFloat64(at, value, true);
    else if (type === "u32" || type === "i32") this.#view.setUint32(at, value, true);
    else this.#view.setBigUint64(at, BigInt(value), true);
  }

  /** A text up to its first zero byte. */
  text(field: FieldName<N>, index = 0): string {
    const { at, length } = this.#find(field, index);
    const bytes = this.bytes.subarray(at, at + length);
    const end = bytes.indexOf(0);
    return new TextDecoder().decode(bytes.subarray(0, end < 0 ? length : end));
  }

  #find(field: FieldName<N>, index: number): { at: number; type: Field["type"]; length: number } {
    const { bytes, fields } = structs[this.#name];
    const { offset, type, length } = (fields as Record<string, Field>)[field];
    return { at: index * bytes + offset, type, length };
  }
}

/** Run one section of a program. */
export interface Action {
  /** Number of the section in the program. */
  readonly section: number;
  /** Sum of `Flag`s. */
  readonly flags?: number;
  /** Where it has what it keeps of its microbatch: below the number of the program's slots. */
  readonly slot?: number;
  /** Another slot, from which some sections read; default: the same. */
  readonly source?: number;
  /** Where the section's inputs start in the program's input buffer: bytes, a multiple of 8. */
  readonly inputBase?: number;
  /** Where the section's outputs start in the program's output buffer: bytes, a multiple of 8. */
  readonly outputBase?: number;
}

/** A list of actions, packed once and run as often as wanted. */
export class Actions {
  /** How many. */
  readonly length: number;
  /** `titan_action[length]`. */
  readonly bytes: Uint8Array<ArrayBuffer>;

  /** Packs the list.
   * @throws {RangeError} if a number is no unsigned integer. */
  constructor(list: readonly Action[]) {
    const structs = new Struct("titan_action", list.length);
    list.forEach(({ section, flags = 0, slot = 0, source = slot, inputBase = 0, outputBase = 0 }, i) => {
      structs.set("section", unsigned(section, `section of action ${i}`, U32), i);
      structs.set("slot", unsigned(slot, `slot of action ${i}`, U32), i);
      structs.set("source", unsigned(source, `source of action ${i}`, U32), i);
      structs.set("flags", unsigned(flags, `flags of action ${i}`, U32), i);
      structs.set("input_base", unsigned(inputBase, `inputBase of action ${i}`), i);
      structs.set("output_base", unsigned(outputBase, `outputBase of action ${i}`), i);
    });
    this.length = list.length;
    this.bytes = structs.bytes;
  }
}

/** Largest `uint32_t`. */
export const U32: number = 2 ** 32 - 1;

/** `value` if the native side can take it as an unsigned number: Deno's fast calls check nothing.
 * @throws {RangeError} else. */
export function unsigned(value: number, what: string, largest: number = Number.MAX_SAFE_INTEGER): number {
  if (!Number.isSafeInteger(value) || value < 0 || value > largest) {
    throw new RangeError(`${what} is ${value}\n  expected: an integer from 0 to ${largest}`);
  }
  return value;
}

/** Buffers of the calls that are under way. */
const held = new Set<readonly ArrayBufferView[]>();

/** Awaits a native call that reads and writes these buffers, which are not collected before. */
export async function holding<T>(buffers: readonly ArrayBufferView[], call: Promise<T>): Promise<T> {
  held.add(buffers);
  try {
    return await call;
  } finally {
    held.delete(buffers);
  }
}
