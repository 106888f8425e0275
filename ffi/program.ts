/** A native program: the compiled step with its memory, and the host buffers through which its inputs and outputs travel.
 * Offsets and sizes are bytes. A run allocates nothing: buffers, action lists and the error struct are made beforehand.
 * @module */
import { type Actions, holding, Struct, unsigned } from "./buffer.ts";
import type { Device } from "./device.ts";
import { check, errorStruct } from "./error.ts";
import { type FilePart, partArguments } from "./file.ts";
import { library } from "./library.ts";

/** What a program holds, in bytes. */
export interface ProgramMemory {
  /** Parameters, moments, activations, scratch. */
  readonly arenaBytes: number;
  /** That one action may read, counted from its input base. */
  readonly inputBytes: number;
  /** That one action may write, counted from its output base. */
  readonly outputBytes: number;
  /** Tensors, instructions and attributes. */
  readonly tableBytes: number;
  /** Of the arena, that the system has put into huge pages; 0 where it does not say. */
  readonly hugeBytes: number;
}

/** Bytes of a part of a file that belong together in the arena. */
export interface Stretch {
  /** First byte, counted from the part's. */
  readonly from: number;
  /** First byte in the arena. */
  readonly to: number;
  readonly bytes: number;
}

/** A part of a file, and what of it goes where, in the order of the file. */
export interface PlacedPart extends FilePart {
  readonly stretches: readonly Stretch[];
}

/** A program on a device. */
export class Program implements Disposable {
  /** What it holds. */
  readonly memory: ProgramMemory;
  /** What the next run reads; write it through typed arrays on its buffer, between runs. */
  readonly input: Uint8Array<ArrayBuffer>;
  /** What the last run wrote. */
  readonly output: Uint8Array<ArrayBuffer>;
  #handle: bigint;
  readonly #symbols = library().symbols;
  readonly #error = errorStruct();
  readonly #inputBytes: bigint;
  readonly #outputBytes: bigint;
  #running = false;
  #pending = 0;
  #doomed = 0n; // the handle, disposed of while calls were under way
  #records: Uint8Array | undefined; // kept, since the next run writes there

  private constructor(handle: bigint, sizes: { inputBytes?: number; outputBytes?: number }) {
    this.#handle = handle;
    const memory = new Struct("titan_memory");
    check(this.#symbols.titan_program_memory(handle, memory.bytes, this.#error.bytes), this.#error);
    this.memory = {
      arenaBytes: memory.get("arena_bytes"),
      inputBytes: memory.get("input_bytes"),
      outputBytes: memory.get("output_bytes"),
      tableBytes: memory.get("table_bytes"),
      hugeBytes: memory.get("huge_bytes"),
    };
    this.input = new Uint8Array(unsigned(sizes.inputBytes ?? this.memory.inputBytes, "inputBytes"));
    this.output = new Uint8Array(unsigned(sizes.outputBytes ?? this.memory.outputBytes, "outputBytes"));
    this.#inputBytes = BigInt(this.input.length);
    this.#outputBytes = BigInt(this.output.length);
  }

  /** Loads an encoded program and allocates its arena, all zeros.
   * @param sizes of the host buffers, where a run's actions lie at several bases; one action's, unless given.
   * @throws {TitanError} `INVALID_PROGRAM` if it is malformed or for more threads, `OUT_OF_MEMORY`. */
  static async create(
    device: Device,
    bytes: Uint8Array<ArrayBuffer>,
    sizes: { inputBytes?: number; outputBytes?: number } = {},
  ): Promise<Program> {
    const error = errorStruct();
    const handle = new BigUint64Array(1);
    const call = library().symbols.titan_program_create(
      device.handle,
      bytes,
      BigInt(bytes.length),
      handle,
      error.bytes,
    );
    check(await holding([bytes, handle, error.bytes], call), error);
    return new Program(handle[0], sizes);
  }

  /** Has the next run write a record per instruction into `records`, in the order in which they run.
   * @throws {TitanError} from that run, `INVALID_ARGUMENT`, where it has more instructions than there are records. */
  async profile(records: Struct<"titan_profile_record">): Promise<void> {
    this.#records = records.bytes;
    const error = errorStruct();
    const call = this.#symbols.titan_program_profile(this.#handle, records.bytes, BigInt(records.count), error.bytes);
    check(await this.#holding([records.bytes, error.bytes], call), error);
  }

  /** Runs the actions in order on `input`, and settles when `output` is written. One run at a time.
   * @throws {TitanError} `NOT_FINITE` with kernel and scope, where an action has `Flag.CHECK_FINITE`. */
  async run(actions: Actions): Promise<void> {
    if (this.#running) {
      throw new Error("The program is running\n  expected: one run at a time\n  fix: await the run before");
    }
    this.#running = true;
    try {
      const call = this.#symbols.titan_program_run(
        this.#handle,
        actions.bytes,
        BigInt(actions.length),
        this.input,
        this.#inputBytes,
        this.output,
        this.#outputBytes,
        this.#error.bytes,
      );
      check(await this.#holding([actions.bytes, this.input, this.output, this.#error.bytes], call), this.#error);
    } finally {
      this.#running = false;
    }
  }

  /** Fills `into` from the arena, from `offset` on, after the runs asked for before. */
  async read(offset: number, into: ArrayBufferView<ArrayBuffer>): Promise<void> {
    const [error, bytes] = [errorStruct(), asBytes(into)];
    const at = BigInt(unsigned(offset, "offset"));
    const call = this.#symbols.titan_buffer_read(this.#handle, at, bytes, BigInt(bytes.length), error.bytes);
    check(await this.#holding([bytes, error.bytes], call), error);
  }

  /** Copies `from` into the arena, from `offset` on, after the runs asked for before. */
  async write(offset: number, from: ArrayBufferView<ArrayBuffer>): Promise<void> {
    const [error, bytes] = [errorStruct(), asBytes(from)];
    const at = BigInt(unsigned(offset, "offset"));
    const call = this.#symbols.titan_buffer_write(this.#handle, at, bytes, BigInt(bytes.length), error.bytes);
    check(await this.#holding([bytes, error.bytes], call), error);
  }

  /** Reads one part, or up to four of `length` bytes at a time, which hashes them quicker, from files straight into the arena, after the runs
   * asked for before. The bytes are there before their hashes are known.
   * @param hashes gets the SHA-256 of each whole part; that of a part which is shorter means nothing.
   * @returns how many bytes there were of each: fewer where its file ends before.
   * @throws {TitanError} `INVALID_ARGUMENT` when a file cannot be read. @throws {RangeError} where hashes have no room. */
  async load(
    parts: readonly PlacedPart[],
    length: number,
    hashes: Uint8Array<ArrayBuffer> | null = null,
  ): Promise<number[]> {
    const { files, starts, read } = partArguments(parts, hashes), all = parts.flatMap(({ stretches }) => stretches);
    const stretches = new Struct("titan_stretch", all.length), error = errorStruct();
    const counts = BigUint64Array.from(parts, (part) => BigInt(part.stretches.length));
    for (const [i, { from, to, bytes }] of all.entries()) {
      stretches.set("from", from, i);
      stretches.set("to", to, i);
      stretches.set("num_bytes", bytes, i);
    }
    const call = this.#symbols.titan_program_load(
      ...[this.#handle, files, starts, parts.length, BigInt(unsigned(length, "length"))] as const,
      ...[stretches.bytes, counts, hashes, read, error.bytes] as const,
    );
    const held = [files, starts, stretches.bytes, counts, read, error.bytes, ...(hashes ? [hashes] : [])];
    check(await this.#holding(held, call), error);
    return Array.from(read, Number);
  }

  /** Frees the program's memory, once the calls under way have ended. */
  [Symbol.dispose](): void {
    const handle = this.#handle;
    this.#handle = 0n; // that of no program: what is asked for from now on is refused
    if (this.#pending === 0) this.#destroy(handle);
    else this.#doomed = handle; // a call may still be on its way to the native side
  }

  #destroy(handle: bigint): void {
    const error = errorStruct();
    check(this.#symbols.titan_program_destroy(handle, error.bytes), error);
  }

  async #holding<T>(buffers: readonly ArrayBufferView[], call: Promise<T>): Promise<T> {
    this.#pending++;
    try {
      return await holding(buffers, call);
    } finally {
      if (--this.#pending === 0 && this.#doomed) {
        this.#destroy(this.#doomed);
        this.#doomed = 0n;
      }
    }
  }
}

function asBytes(view: ArrayBufferView<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}
