/** The ranks that train together, each a process of its own. Opening it joins this process to the others that mpirun or srun started;
 * then programs of its device may have collectives. Calls settle when all ranks have made them, or fail once the time-out is over.
 * @module */
import { Struct, unsigned } from "./buffer.ts";
import type { Device } from "./device.ts";
import { check, errorStruct } from "./error.ts";
import { library } from "./library.ts";
import { Collective } from "./symbols.ts";

/** How ranks find each other, and how long they wait. */
export interface CommOptions {
  /** Of the communication module: `"mpi"` is the library `libtitan_mpi` beside libtitan, and the default. */
  readonly module?: string;
  /** Milliseconds to wait for others while opening, loading programs and in a program's first run; default 300,000. */
  readonly startTimeoutMs?: number;
  /** Milliseconds to wait for others later; default 100,000. */
  readonly timeoutMs?: number;
  /** Collectives that the flight recorder keeps of each rank, the same number on all; default 32. */
  readonly records?: number;
  /** A link to simulate: no collective ends before this link could have brought its messages, one after another. */
  readonly link?: SimulatedLink;
}

/** A link between ranks. */
export interface SimulatedLink {
  /** Its bandwidth. */
  readonly bytesPerSecond: number;
  /** Nanoseconds that a message takes, however short. */
  readonly latencyNs: number;
}

/** What ranks do together. */
export type CollectiveName = keyof typeof Collective;

/** What a rank has done in collectives of one kind. */
export interface Traffic {
  /** How many. */
  readonly collectives: number;
  /** Tensors of them all. */
  readonly tensors: number;
  /** Bytes that the rank sends where pieces travel in rings, which is how a plan counts them. */
  readonly sentBytes: number;
}

/** Where the library of a communication module has to be. */
export function modulePath(name = "mpi"): string {
  return library().path.replace(/[^/]*$/, `libtitan_${name}.so`);
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
  /** On which processors the device computes, and why; empty where the host has one rank. */
  readonly processors: string;
}

/** Bytes of a line about a record, at most. */
const MOST_OF_RECORD = 320;

/** A device's membership in the world of all ranks. */
export class Comm implements AsyncDisposable {
  /** Who this is. */
  readonly info: CommInfo;
  readonly #handle: bigint;
  readonly #symbols = library().symbols;
  readonly #records: number;
  #open = true;

  private constructor(handle: bigint, records: number) {
    this.#handle = handle;
    this.#records = records;
    const error = errorStruct(), info = new Struct("titan_comm_info");
    check(this.#symbols.titan_comm_describe(handle, info.bytes, error.bytes), error);
    this.info = {
      rank: info.get("rank"),
      size: info.get("size"),
      hostRank: info.get("host_rank"),
      hostSize: info.get("host_size"),
      exchange: info.text("exchange"),
      version: info.text("version"),
      processors: info.text("processors"),
    };
  }

  /** Joins the others; once in a process.
   * @throws {TitanError} `COMMUNICATION` if there is no such module, or the others do not join in time. */
  static async open(device: Device, options: CommOptions = {}): Promise<Comm> {
    const error = errorStruct(), handle = new BigUint64Array(1);
    const name = new TextEncoder().encode(`${options.module ?? "mpi"}\0`);
    const { startTimeoutMs = 300_000, timeoutMs = 100_000, records = 32, link } = options;
    const native = new Struct("titan_comm_options");
    native.set("start_timeout_ms", unsigned(startTimeoutMs, "startTimeoutMs"));
    native.set("timeout_ms", unsigned(timeoutMs, "timeoutMs"));
    native.set("num_records", unsigned(records, "records"));
    native.set("latency_ns", unsigned(link?.latencyNs ?? 0, "latencyNs"));
    native.set("bytes_per_second", link?.bytesPerSecond ?? 0);
    check(await library().symbols.titan_comm_open(device.handle, name, native.bytes, handle, error.bytes), error);
    return new Comm(handle[0], records);
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
    const error = errorStruct(), text = new Uint8Array((this.#records + 1) * this.info.hostSize * MOST_OF_RECORD);
    check(this.#symbols.titan_comm_record(this.#handle, text, BigInt(text.length), error.bytes), error);
    return new TextDecoder().decode(text.subarray(0, text.indexOf(0)));
  }

  /** What this rank has done so far, by kind. */
  sent(): Record<CollectiveName, Traffic> {
    const error = errorStruct(), traffic = new Struct("titan_comm_traffic");
    const of = (collective: number): Traffic => {
      check(this.#symbols.titan_comm_count(this.#handle, collective, traffic.bytes, error.bytes), error);
      return {
        collectives: traffic.get("collectives"),
        tensors: traffic.get("tensors"),
        sentBytes: traffic.get("sent_bytes"),
      };
    };
    const kinds = Object.entries(Collective).map(([name, kind]) => [name, of(kind)]);
    return Object.fromEntries(kinds) as Record<CollectiveName, Traffic>;
  }

  /** Tells the other ranks that this one does not go on, and why: who waits for it fails with that. There is no closing behind it. */
  giveUp(why: string): void {
    this.#open = false;
    const error = errorStruct(), text = new TextEncoder().encode(`${why.replaceAll("\0", " ")}\0`);
    check(this.#symbols.titan_comm_give_up(this.#handle, text, error.bytes), error);
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
