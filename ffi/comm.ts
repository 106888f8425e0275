/** The ranks that train together, each a process of its own. Opening it joins this process to the others that mpirun or srun started;
 * then programs of its device may have collectives. Calls settle when all ranks have made them, or fail once the time-out is over.
 * @module */
import { Struct, unsigned } from "./buffer.ts";
import type { Device } from "./device.ts";
import { check, errorStruct } from "./error.ts";
import { library } from "./library.ts";

/** How ranks find each other, and how long they wait. */
export interface CommOptions {
  /** Of the communication module: `"mpi"` is the library `libtitan_mpi` beside libtitan, and the default. */
  readonly module?: string;
  /** Milliseconds to wait for others while opening, loading programs and in a program's first run; default 300,000. */
  readonly startTimeoutMs?: number;
  /** Milliseconds to wait for others later; default 100,000. */
  readonly timeoutMs?: number;
}

/** What a rank knows of the world. */
export interface CommInfo {
  /** This process, from 0 on. */
  readonly rank: number;
  /** Number of ranks. */
  readonly size: number;
  /** This process among those of its host. */
  readonly hostRank: number;
  /** Number of ranks on this host. */
  readonly hostSize: number;
  /** How ranks exchange: `shared memory`, or `messages` and why. */
  readonly exchange: string;
  /** Of the library below, `Open MPI v5.0.7`. */
  readonly version: string;
}

/** A device's membership in the world of all ranks. */
export class Comm implements AsyncDisposable {
  /** Who this is. */
  readonly info: CommInfo;
  readonly #handle: bigint;
  readonly #symbols = library().symbols;
  #open = true;

  private constructor(handle: bigint) {
    this.#handle = handle;
    const error = errorStruct(), info = new Struct("titan_comm_info");
    check(this.#symbols.titan_comm_describe(handle, info.bytes, error.bytes), error);
    this.info = {
      rank: info.get("rank"),
      size: info.get("size"),
      hostRank: info.get("host_rank"),
      hostSize: info.get("host_size"),
      exchange: info.text("exchange"),
      version: info.text("version"),
    };
  }

  /** Joins the others; once in a process.
   * @throws {TitanError} `COMMUNICATION` if there is no such module, or the others do not join in time. */
  static async open(device: Device, options: CommOptions = {}): Promise<Comm> {
    const error = errorStruct(), handle = new BigUint64Array(1);
    const name = new TextEncoder().encode(`${options.module ?? "mpi"}\0`);
    const start = BigInt(unsigned(options.startTimeoutMs ?? 300_000, "startTimeoutMs"));
    const later = BigInt(unsigned(options.timeoutMs ?? 100_000, "timeoutMs"));
    const call = library().symbols.titan_comm_open(device.handle, name, start, later, handle, error.bytes);
    check(await call, error);
    return new Comm(handle[0]);
  }

  /** The bytes of every rank, by rank; all give as many. Ranks do it in the same order as everything else: not while a program runs. */
  async gather(mine: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>[]> {
    const { length } = mine, all = new Uint8Array(length * this.info.size);
    await this.gatherInto(mine, all);
    return Array.from({ length: this.info.size }, (_, rank) => all.slice(rank * length, (rank + 1) * length));
  }

  /** `gather` into an array that has room for what all ranks give.
   * @throws {RangeError} if it has not. */
  async gatherInto<T extends Uint8Array<ArrayBuffer> | Float64Array<ArrayBuffer>>(mine: T, all: T): Promise<void> {
    const error = errorStruct(), { byteLength } = mine;
    if (all.byteLength !== byteLength * this.info.size) {
      throw new RangeError(`Cannot gather ${byteLength} bytes of ${this.info.size} ranks into ${all.byteLength} bytes`);
    }
    check(await this.#symbols.titan_comm_gather(this.#handle, mine, BigInt(byteLength), all, error.bytes), error);
  }

  /** Settles when every rank has called it. */
  async barrier(): Promise<void> {
    await this.gather(new Uint8Array(0));
  }

  /** What each rank of this host does or has done last: the flight recorder, for people. */
  record(): string {
    const error = errorStruct(), text = new Uint8Array(1 << 20);
    check(this.#symbols.titan_comm_record(this.#handle, text, BigInt(text.length), error.bytes), error);
    return new TextDecoder().decode(text.subarray(0, text.indexOf(0)));
  }

  /** Ends the processes of all ranks at once, this one too. */
  abort(exitCode: number): void {
    const error = errorStruct();
    check(this.#symbols.titan_comm_abort(this.#handle, exitCode, error.bytes), error);
  }

  /** Leaves the others, who do so too. A process that ends without it counts as failed.
   * @throws {TitanError} `COMMUNICATION` if the others do not. */
  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    const error = errorStruct();
    check(await this.#symbols.titan_comm_close(this.#handle, error.bytes), error);
  }

  /** `close`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
