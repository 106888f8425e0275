/** The processes that train together, as the trainer sees them.
 * @module */
import { Comm, type CommInfo, type CommOptions } from "../ffi/comm.ts";
import type { Device } from "../ffi/device.ts";
import { LaunchError, moduleOf } from "../launch/world.ts";
import type { Together } from "./checkpoint/save.ts";

/** This process among the others. */
export class ProcessGroup implements AsyncDisposable, Together {
  /** Who this is. */
  readonly info: CommInfo;
  /** Native membership. */
  readonly comm: Comm;
  readonly #numbers = new Map<
    number,
    { readonly mine: Float64Array<ArrayBuffer>; readonly all: Float64Array<ArrayBuffer> }
  >();
  private constructor(comm: Comm) {
    this.comm = comm;
    this.info = comm.info;
  }

  /** Joins the others.
   * @throws {TitanError} if they do not come. @throws {LaunchError} if this is not who the environment says. */
  static async open(
    device: Device,
    place: { readonly rank: number; readonly size: number },
    options?: CommOptions,
  ): Promise<ProcessGroup> {
    const comm = await Comm.open(device, { module: moduleOf(), ...options }), { rank, size } = comm.info;
    if (rank === place.rank && size === place.size) return new ProcessGroup(comm);
    throw new LaunchError(
      `This process is rank ${place.rank} of ${place.size} to the environment, and rank ${rank} of ${size} to ${comm.info.version}`,
      "the same",
      "start all ranks with the mpirun of that MPI, with srun --mpi=TYPE for a type that it knows (srun --mpi=list), or with --nproc",
    );
  }

  /** The numbers of all ranks, one rank after another; all give as many, in the same order of calls. The array is used again by the
   * next call with as many. */
  async exchange(mine: ArrayLike<number>): Promise<Float64Array> {
    const { length } = mine, { size } = this.info;
    if (!this.#numbers.has(length)) {
      this.#numbers.set(length, { mine: new Float64Array(length), all: new Float64Array(length * size) });
    }
    const buffers = this.#numbers.get(length)!;
    buffers.mine.set(mine);
    await this.comm.gatherInto(buffers.mine, buffers.all);
    return buffers.all;
  }

  /** The values of all ranks, by rank, through JSON. */
  async exchangeJson<T>(mine: T): Promise<T[]> {
    const bytes = new TextEncoder().encode(JSON.stringify(mine)), lengths = [...await this.exchange([bytes.length])];
    const padded = new Uint8Array(Math.max(...lengths));
    padded.set(bytes);
    const all = await this.comm.gather(padded);
    return all.map((one, rank) => JSON.parse(new TextDecoder().decode(one.subarray(0, lengths[rank]))));
  }

  /** Waits until what each rank works on is done, however long that takes, and gives what came of it, by rank, through JSON. Ranks that
   * wait hear every second of those that work, so that no time-out ends the run. @param work must not reject. */
  async meet<T>(work: Promise<T>): Promise<T[]> {
    let isDone = false;
    const mine = work.then((value) => {
      isDone = true;
      return value;
    });
    do await within(mine, 1000); while ((await this.exchange([isDone ? 1 : 0])).some((done) => done === 0));
    return await this.exchangeJson(await mine);
  }

  /** Something went wrong here: the others learn of it at once, and are not to be met again. */
  fail(error: unknown): void {
    this.comm.giveUp((error instanceof Error ? error.message : `${error}`).split("\n")[0]);
  }

  /** Leaves the others, who do so too. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.comm.close();
  }
}

/** Waits for something so many milliseconds at most. */
async function within(work: Promise<unknown>, ms: number): Promise<void> {
  const late = Promise.withResolvers<void>(), timer = setTimeout(late.resolve, ms);
  await Promise.race([work, late.promise]);
  clearTimeout(timer);
}
