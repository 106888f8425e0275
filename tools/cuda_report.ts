/**
 * What the compiler made of the kernels for GPUs: registers, shared memory, occupancy, bytes under way. Reads a module by
 * `cuobjdump`, which needs no GPU:
 *
 *     deno run -A tools/cuda_report.ts build/libtitan_cuda.so           holds the kernels against limits, and the table in docs/cuda.md against them
 *     deno run -A tools/cuda_report.ts build/libtitan_cuda.so --write   writes the table; `deno fmt` then aligns it
 *
 * The exit code is 1 where a limit is broken, or where the table is not what this version of nvcc makes.
 * @module
 */

/** A kernel for one architecture. Sizes are bytes. */
export interface Compiled {
  /** Such as `sm_90`. */
  readonly arch: string;
  readonly name: string;
  /** First argument of its template: what it computes in. */
  readonly real: "f32" | "f64" | null;
  /** Of a thread. */
  readonly registers: number;
  /** Of a thread, in local memory. */
  readonly stack: number;
  /** Of a block, of a fixed size, without what is the system's. */
  readonly shared: number;
}

/** What an architecture has, by the tables "Technical Specifications per Compute Capability" of NVIDIA's CUDA C++ Programming Guide (13.0).
 * Registers are given to a warp by 256, shared memory to a block by 128 bytes and 1 KiB for the system; where a block's size is fixed by
 * the compiler it has 48 KiB at most. */
const SM = { warps: 64, blocks: 32, registers: 65536, fixedShared: 48 * 1024 };
const SHARED: Readonly<Record<string, number>> = { sm_80: 164 * 1024, sm_90: 228 * 1024, sm_100: 228 * 1024 };
/** Shared memory of a block that the system has. */
const SYSTEM = 1024;

/** Warps that a multiprocessor holds at once. */
export function occupancy({ arch, registers, shared }: Compiled, threads: number): number {
  const warps = Math.ceil(threads / 32), roundUp = (n: number, to: number) => Math.ceil(n / to) * to;
  // The four parts of a multiprocessor have a quarter of the registers each.
  const byRegisters = Math.floor(SM.registers / 4 / roundUp(registers * 32, 256)) * 4;
  const byShared = Math.floor(SHARED[arch] / roundUp(shared + SYSTEM, 128));
  return warps * Math.min(SM.blocks, Math.floor(SM.warps / warps), Math.floor(byRegisters / warps), byShared);
}

/** A kernel that memory limits, as a step of Llama 3 8B launches it. */
interface Launched {
  /** The kernel as programs call it. */
  readonly kernel: string;
  /** The function in csrc/cuda/ops. */
  readonly name: string;
  readonly threads: number;
  /** Bytes that a thread has under way from memory at once. */
  readonly underWay: number;
  /** Bytes of shared memory that the launch asks for. */
  readonly dynamic?: number;
  /** Bytes of an f32 element that it moves; `least` where it could be fewer. */
  readonly moves: string;
  readonly least?: string;
}
export const LAUNCHED: readonly Launched[] = [
  { kernel: "copy", name: "copy_words", threads: 256, underWay: 16, moves: "8" },
  { kernel: "accumulate", name: "add_dense", threads: 256, underWay: 32, moves: "12" },
  { kernel: "reduce", name: "along", threads: 256, underWay: 16, moves: "4" },
  { kernel: "rmsnorm", name: "rmsnorm", threads: 512, underWay: 16, moves: "8" },
  { kernel: "add_rmsnorm", name: "add_rmsnorm", threads: 512, underWay: 32, moves: "16" },
  {
    ...{ kernel: "rmsnorm_backward", name: "backward_rows", threads: 512, dynamic: 16384 },
    ...{ underWay: 32, moves: "12, with a residual 16" },
  },
  { kernel: "rope", name: "rope", threads: 512, underWay: 16, moves: "8" },
  { kernel: "softmax", name: "softmax", threads: 512, underWay: 16, moves: "8" },
  { kernel: "embedding", name: "embedding", threads: 512, underWay: 16, moves: "8" },
  { kernel: "take", name: "take", threads: 512, underWay: 16, moves: "8" },
  { kernel: "put_rows", name: "put_rows", threads: 256, underWay: 16, moves: "8" },
  { kernel: "cross_entropy", name: "cross_entropy", threads: 512, underWay: 16, moves: "4" },
  { kernel: "cross_entropy_backward", name: "cross_entropy_backward", threads: 512, underWay: 16, moves: "8" },
  { kernel: "sum_squares", name: "sum_pieces", threads: 256, underWay: 16, moves: "4" },
  { kernel: "adamw", name: "adamw", threads: 256, underWay: 64, moves: "28 of a parameter" },
];

/** Bytes that a multiprocessor of an H100 SXM must have under way for 90 % of its bandwidth: Little's law. A load takes 480 cycles where
 * nothing else runs (Luo et al., "Benchmarking and Dissecting the Nvidia Hopper GPU Architecture via Microbenchmarking", 2024, of an H100 PCIe);
 * twice that is counted, as memory is busy. */
export const NEEDED = 0.9 * (3.35e12 / 132) * (2 * 480 / 1.755e9);

const archs = (text: string): { arch: string; body: string }[] =>
  text.split(/^arch = /m).slice(1).map((body) => ({ arch: /^sm_\d+/.exec(body)![0], body }));

/** The name in `_ZN...cu_1234abcd7rmsnormIfEEv...`, and in what it computes; other names are taken as they are. */
export function functionName(mangled: string): Pick<Compiled, "name" | "real"> {
  const [, length, rest] = /_cu_[\da-f]{8}(?:_\d+)?(\d+)(.*)/.exec(mangled) ?? [];
  if (length === undefined) return { name: mangled, real: null };
  // A hash before the length may end in digits: the length is what leaves a template, or the end of the name.
  for (const digits of [length, length.slice(1), length.slice(2)]) {
    const name = rest.slice(0, Number(digits)), [, real] = /^I([fd])/.exec(rest.slice(Number(digits))) ?? [];
    if (/^[a-z_]\w*$/.test(name)) return { name, real: real === "f" ? "f32" : real === "d" ? "f64" : null };
  }
  return { name: mangled, real: null };
}

/** Reads what `cuobjdump --dump-resource-usage` prints. From sm_90 on it counts the system's part of shared memory, where a kernel has any. */
export function parseResources(text: string): Compiled[] {
  return archs(text).flatMap(({ arch, body }) =>
    [...body.matchAll(/Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)/g)].map(
      ([, mangled, registers, stack, shared, local]): Compiled => ({
        arch,
        ...functionName(mangled),
        registers: Number(registers),
        stack: Number(stack) + Number(local),
        shared: Math.max(0, Number(shared) - (arch === "sm_80" ? 0 : SYSTEM)),
      }),
    )
  );
}

/** The functions of one architecture that load, and that store, 16 bytes at once, from what `cuobjdump -sass` prints. */
export function parseWords(text: string): { readonly loads: Set<string>; readonly stores: Set<string> } {
  const [loads, stores] = [new Set<string>(), new Set<string>()];
  for (const body of text.split(/^\s*Function : /m).slice(1)) {
    const { name, real } = functionName(/^\S+/.exec(body)![0]);
    if (real === "f64") continue;
    if (/\bLDG\.E(\.\w+)*\.128/.test(body)) loads.add(name);
    if (/\bSTG\.E(\.\w+)*\.128/.test(body)) stores.add(name);
  }
  return { loads, stores };
}

const NO_STORES = ["reduce", "cross_entropy", "sum_squares"]; // of rows: one number each

/** A row of the table. */
export interface Row extends Launched, Compiled {
  readonly warps: number;
  /** Bytes under way in a multiprocessor. */
  readonly bytes: number;
}

/** The kernels of `LAUNCHED` for an architecture, in f32. Of several with one name the one with most registers.
 * @throws {Error} where one is missing. */
export function rowsOf(all: readonly Compiled[], arch: string): Row[] {
  return LAUNCHED.map((launched) => {
    const own = all.filter((k) => k.arch === arch && k.name === launched.name && k.real !== "f64");
    if (own.length === 0) {
      throw new Error(`No kernel ${launched.name} for ${arch}; expected: one of LAUNCHED in tools/cuda_report.ts`);
    }
    const most = own.reduce((a, b) => b.registers > a.registers ? b : a);
    const kernel = { ...most, shared: most.shared + (launched.dynamic ?? 0) };
    const warps = occupancy(kernel, launched.threads);
    return { ...launched, ...kernel, warps, bytes: warps * 32 * launched.underWay };
  });
}

/** What breaks a limit, a line each. */
export function broken(all: readonly Compiled[], words: ReturnType<typeof parseWords>): string[] {
  const found: string[] = [];
  for (const { arch, name, shared } of all) {
    if (shared > SM.fixedShared) {
      found.push(`${arch} ${name}: ${shared} bytes of shared memory; expected: at most ${SM.fixedShared}`);
    }
  }
  for (const arch of new Set(all.map((k) => k.arch))) {
    for (const { name, stack, bytes } of rowsOf(all, arch)) {
      if (stack > 0) {
        found.push(`${arch} ${name}: ${stack} bytes of local memory; expected: registers alone`);
      }
      if (bytes < NEEDED) {
        found.push(`${arch} ${name}: ${bytes} bytes under way; expected: at least ${Math.ceil(NEEDED)}`);
      }
    }
  }
  for (const { name, kernel } of LAUNCHED) {
    if (!words.loads.has(name)) found.push(`${name} loads no words of 16 bytes`);
    if (!NO_STORES.includes(kernel) && !words.stores.has(name)) found.push(`${name} stores no words of 16 bytes`);
  }
  return found;
}

/** The table, for Markdown. */
export function tableOf(rows: readonly Row[]): string {
  const cells = rows.map(({ kernel, moves, least, threads, registers, shared, warps, bytes }) =>
    [`\`${kernel}\``, moves, least ?? moves, threads, registers, shared, warps, (bytes / 1024).toFixed(0)].join(" | ")
  );
  const head = [
    "kernel",
    "bytes moved per f32 element",
    "least possible",
    "threads of a block",
    "registers",
    "shared bytes",
  ];
  return [[...head, "warps of 64", "KiB under way"].join(" | "), Array(8).fill("---").join(" | "), ...cells]
    .map((line) => `| ${line} |`).join("\n");
}

const DOCUMENT = "docs/cuda.md", BEGIN = /<!-- Made by tools\/cuda_report\.ts with nvcc ([\d.]+) for sm_90\. -->\n/;

/** What is wrong with the table of a document, "" where nothing is.
 * @param version of nvcc: another makes another table. */
export function staleness(document: string, rows: readonly Row[], version: string): string {
  const [mark, made] = BEGIN.exec(document) ?? [];
  if (mark === undefined) return "there is no table of tools/cuda_report.ts";
  if (made !== version) return "";
  const squeezed = (text: string) =>
    text.trim().split("\n").filter((l) => !/^[| -]+$/.test(l)).join("\n").replaceAll(/ +/g, " ");
  const [table] = document.split(mark)[1].trimStart().split("\n\n");
  return squeezed(table) === squeezed(tableOf(rows))
    ? ""
    : `its table is not what nvcc ${version} makes; fix: run this with --write`;
}

async function output(command: string, ...args: string[]): Promise<string> {
  const run = async () => await new Deno.Command(command, { args }).output();
  const { stdout, stderr, success } = await run().catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    const fix = "add the toolkit's bin to it, or see docs/cuda.md";
    throw new Error(`There is no ${command}\n  expected: nvcc, cuobjdump and nvdisasm in PATH\n  fix: ${fix}`);
  });
  if (!success) throw new Error(`${command} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

async function main(files: readonly string[], write: boolean): Promise<number> {
  if (files.length === 0) {
    throw new Error("There is no module to read\n  expected: its file\n  fix: name build/libtitan_cuda.so");
  }
  const texts = async (...flags: string[]) =>
    (await Promise.all(files.map((f) => output("cuobjdump", ...flags, f)))).join("\n");
  const all = parseResources(await texts("--dump-resource-usage"));
  const found = broken(all, parseWords(await texts("-arch", "sm_90", "-sass")));
  const rows = rowsOf(all, "sm_90"), version = /release ([\d.]+)/.exec(await output("nvcc", "--version"))![1];
  const document = Deno.readTextFileSync(DOCUMENT);
  if (write) {
    const [mark] = BEGIN.exec(document)!, [before, after] = document.split(mark);
    const rest = after.trimStart().split("\n\n").slice(1).join("\n\n");
    Deno.writeTextFileSync(
      DOCUMENT,
      `${before}${mark.replace(/nvcc [\d.]+/, `nvcc ${version}`)}\n${tableOf(rows)}\n\n${rest}`,
    );
  } else {
    const stale = staleness(document, rows, version);
    if (stale) found.push(`${DOCUMENT}: ${stale}`);
  }
  console.log(
    `${all.length} kernels, of which ${rows.length} that memory limits${
      found.length > 0 ? "" : ": all within their limits"
    }`,
  );
  for (const line of found) console.error(`error: ${line}`);
  return found.length > 0 ? 1 : 0;
}

if (import.meta.main) {
  const files = Deno.args.filter((a) => a !== "--write");
  const failed = (error: Error) => (console.error(`error: ${error.message}`), 1);
  Deno.exit(await main(files, Deno.args.includes("--write")).catch(failed));
}
