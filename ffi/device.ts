/** A device that programs run on. Each has one native executor thread; calls return at once and settle when it has done the work.
 * @module */
import { Struct, U32, unsigned } from "./buffer.ts";
import { check, errorStruct } from "./error.ts";
import { library } from "./library.ts";
import { DeviceKind, Measure, Status } from "./symbols.ts";

/** What a device is. */
export interface DeviceInfo {
  /** `cpu`, or `cuda`, a GPU. */
  readonly kind: "cpu" | "cuda";
  /** That its kernels use. */
  readonly threads: number;
  /** Why so many, and where they run; empty if there is nothing to say. Of a GPU, its memory, clock and links. */
  readonly threadsText: string;
  /** Width of the vectors that the kernels were compiled for. */
  readonly vectorBits: number;
  /** Why it is no GPU, where one was looked for and the module for them is there. */
  readonly noGpu?: string;
  /** Of the processor, that the kernels were compiled for: `portable`, `avx2`, `avx512`, `avx512_bf16`, `amx`, on arm64 `portable`,
   * `neon_bf16`; of a GPU, such as `sm_90`. */
  readonly level: string;
  /** Was it forced by the environment variable TITAN_CPU? */
  readonly levelIsForced: boolean;
  /** Name of the processor. */
  readonly processor: string;
  /** Who multiplies matrices of f32 and f64: libtitan itself, or a BLAS with its version; `TITAN_PRODUCT=own|blas` forces it.
   * Those of bf16 are always libtitan's own. */
  readonly product: string;
}

/** Memory of this process, in bytes, by the machine and the control groups (cgroups) that limit it. */
export interface ProcessMemory {
  /** That the limit which leaves least allows. */
  readonly totalBytes: number;
  /** Of that, its part of what nobody uses or what only caches files, and what it has already. Ranks of a host get equal parts. */
  readonly availableBytes: number;
  /** What this process has already. */
  readonly ownBytes: number;
  /** File that sets the limit; empty where it is the machine's memory. */
  readonly file: string;
  /** Is it a GPU's, in which a process has its arena alone? */
  readonly isGpu?: boolean;
}

/** What a device is to take of its machine. */
export interface DeviceOptions {
  /** `cpu`, the default, `cuda`, a GPU, or `auto`: a GPU where one is found. */
  readonly kind?: "auto" | "cpu" | "cuda";
  /** Of a GPU: which of those that this process sees; default 0. */
  readonly ordinal?: number;
  /** Threads of its kernels. 0, the default: OMP_NUM_THREADS, or one for each core that the process may use, as far as its CPU quota
   * keeps them busy. */
  readonly threads?: number;
  /** Processes of the run on this host, which share it; default 1. */
  readonly hostSize?: number;
  /** May whoever started them have given each processors of its own? Then those are not divided once more. Default false. */
  readonly placed?: boolean;
}

/** An open device. */
export class Device implements Disposable {
  /** `titan_device` for native calls. */
  readonly handle: bigint;
  /** What it is. */
  readonly info: DeviceInfo;

  /** Opens the CPU, or a GPU.
   * @param options which, threads and processes. @throws {TitanError} if the native side refuses. */
  constructor(options: DeviceOptions = {}) {
    const wanted = new Struct("titan_device_options");
    wanted.set("threads", unsigned(options.threads ?? 0, "threads", U32));
    wanted.set("host_size", unsigned(options.hostSize ?? 1, "hostSize", U32));
    wanted.set("placed", options.placed ? 1 : 0);
    const { symbols } = library();
    const error = errorStruct();
    const handle = new BigUint64Array(1);
    const open = (kind: number, ordinal = 0): number =>
      symbols.titan_device_open(kind, unsigned(ordinal, "ordinal", U32), wanted.bytes, handle, error.bytes);
    const { kind = "cpu", ordinal } = options;
    const status = kind === "cpu" ? open(DeviceKind.CPU) : open(DeviceKind.CUDA, ordinal);
    const noGpu = kind === "auto" && status !== Status.OK ? error.text("message").split("; expected")[0] : undefined;
    check(noGpu === undefined ? status : open(DeviceKind.CPU), error);
    this.handle = handle[0];
    const info = new Struct("titan_device_info");
    check(symbols.titan_device_describe(this.handle, info.bytes, error.bytes), error);
    this.info = {
      kind: info.get("kind") === DeviceKind.CUDA ? "cuda" : "cpu",
      threads: info.get("threads"),
      threadsText: info.text("threads_text"),
      noGpu: noGpu?.startsWith("there is no module") ? undefined : noGpu, // so says csrc/cuda/open.cpp
      vectorBits: info.get("vector_bits"),
      level: info.text("level"),
      levelIsForced: info.get("level_is_forced") !== 0,
      processor: info.text("processor"),
      product: info.text("product"),
    };
  }

  /** Memory that there is for this process now. */
  memory(): ProcessMemory {
    const error = errorStruct(), memory = new Struct("titan_process_memory");
    check(library().symbols.titan_device_memory(this.handle, memory.bytes, error.bytes), error);
    return {
      totalBytes: memory.get("total_bytes"),
      availableBytes: memory.get("available_bytes"),
      ownBytes: memory.get("own_bytes"),
      file: memory.text("file"),
      isGpu: this.info.kind === "cuda",
    };
  }

  /** Speed of a matrix product, n x n x n, in GFLOP/s.
   * @param options.n 1024 unless given; a GPU multiplies larger ones until one takes 0.1 ms.
   * @param options.threads at most those of the device; 0 is all.
   * @param options.dtype of the operands, f32 unless given; the result is f32. */
  async measure(options: { n?: number; threads?: number; dtype?: "f32" | "bf16" } = {}): Promise<number> {
    const what = options.dtype === "bf16" ? Measure.PRODUCT_BF16 : Measure.PRODUCT;
    return await this.#measure(what, options.n ?? 1024, options.threads);
  }

  /** Memory bandwidth in GB/s: bytes that y += x reads and writes.
   * @param options.n f32 elements of each array; unless given, 256 MiB, which no cache holds.
   * @param options.threads at most those of the device; 0 is all. */
  async measureBandwidth(options: { n?: number; threads?: number } = {}): Promise<number> {
    return await this.#measure(Measure.BANDWIDTH, options.n ?? 2 ** 26, options.threads);
  }

  async #measure(measure: number, n: number, threads = 0): Promise<number> {
    const error = errorStruct();
    const gigaPerSecond = new Float64Array(1);
    const size = BigInt(unsigned(n, "n"));
    check(
      await library().symbols.titan_device_measure(
        this.handle,
        measure,
        size,
        unsigned(threads, "threads", U32),
        gigaPerSecond,
        error.bytes,
      ),
      error,
    );
    return gigaPerSecond[0];
  }

  /** Closes the device; its programs may still run. */
  [Symbol.dispose](): void {
    const error = errorStruct();
    check(library().symbols.titan_device_close(this.handle, error.bytes), error);
  }
}
