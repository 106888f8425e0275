import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { Device } from "../../ffi/device.ts";
import { TitanError } from "../../ffi/error.ts";
import { library } from "../../ffi/library.ts";

library(); // opened here: inside a test the sanitizer would call it a leak

Deno.test("a device says what it is", () => {
  using device = new Device({ threads: 3 });
  const { threads, threadsText, vectorBits, level, processor, product } = device.info;
  assertEquals([threads, typeof threadsText], [3, "string"]);
  assert([128, 256, 512].includes(vectorBits));
  assert(level.length > 2);
  assert(processor.length > 2 && product.length > 2);
});

Deno.test("TITAN_CPU forces a level, and names that are none are an error", () => {
  const before = Deno.env.get("TITAN_CPU");
  try {
    Deno.env.set("TITAN_CPU", "portable");
    using device = new Device({ threads: 1 });
    assertEquals(device.info.level, "portable");
    assert(device.info.levelIsForced);
    Deno.env.set("TITAN_CPU", "avx9000");
    const error = assertThrows(() => new Device({ threads: 1 }), TitanError);
    assertEquals(error.status, "INVALID_ARGUMENT");
    assertMatch(
      error.message,
      /^TITAN_CPU is avx9000, no level of this library\n {2}expected: one of .*portable\n {2}fix: .*unset it/,
    );
    Deno.env.set("TITAN_CPU", ""); // as if it were unset
    using best = new Device({ threads: 1 });
    assert(!best.info.levelIsForced);
  } finally {
    if (before === undefined) Deno.env.delete("TITAN_CPU");
    else Deno.env.set("TITAN_CPU", before);
  }
});

Deno.test("TITAN_PRODUCT forces who multiplies matrices, and other values are an error", () => {
  const before = Deno.env.get("TITAN_PRODUCT");
  try {
    Deno.env.set("TITAN_PRODUCT", "own");
    using device = new Device({ threads: 1 });
    assertEquals(device.info.product, "own matrix product, forced by TITAN_PRODUCT");
    Deno.env.set("TITAN_PRODUCT", "mkl");
    const error = assertThrows(() => new Device({ threads: 1 }), TitanError);
    assertEquals(error.status, "INVALID_ARGUMENT");
    assertMatch(error.message, /^TITAN_PRODUCT is mkl\n {2}expected: own or blas\n {2}fix: /);
  } finally {
    if (before === undefined) Deno.env.delete("TITAN_PRODUCT");
    else Deno.env.set("TITAN_PRODUCT", before);
  }
});

/** Does something while TITAN_CUDA is so. */
function withModule(path: string, action: () => void): void {
  const before = Deno.env.get("TITAN_CUDA");
  try {
    Deno.env.set("TITAN_CUDA", path);
    action();
  } finally {
    if (before === undefined) Deno.env.delete("TITAN_CUDA");
    else Deno.env.set("TITAN_CUDA", before);
  }
}

Deno.test("a GPU without its module says what is missing, and how to get it; where it is left open, the CPU is taken", () => {
  withModule("/nowhere/libtitan_cuda.so", () => {
    const error = assertThrows(() => new Device({ kind: "cuda" }), TitanError);
    assertEquals(error.status, "INVALID_ARGUMENT");
    assertMatch(
      error.message,
      /^there is no module for GPUs, which would be \/nowhere\/libtitan_cuda\.so\n {2}expected: the module .*\n {2}fix: deno task setup --cuda/,
    );
    using device = new Device({ kind: "auto", ordinal: 1 });
    assertEquals([device.info.kind, device.info.noGpu], ["cpu", undefined]);
  });
});

Deno.test("where a GPU is looked for and its module cannot be opened, the CPU says why it is taken", () => {
  withModule(fromFileUrl(import.meta.url), () => {
    using device = new Device({ kind: "auto" });
    assertEquals(device.info.kind, "cpu");
    assertMatch(device.info.noGpu!, /^cannot open the module for GPUs: .*device_test\.ts: .*$/);
    assertThrows(() => new Device({ kind: "cuda" }), TitanError, "cannot open the module for GPUs");
  });
});

Deno.test("a device says how much memory there is for this process, and ranks of a host get equal parts", () => {
  using alone = new Device({ threads: 1 }), shared = new Device({ threads: 1, hostSize: 1000 });
  const { totalBytes, availableBytes, ownBytes, file } = alone.memory();
  assert(2 ** 26 < availableBytes && availableBytes <= totalBytes && totalBytes <= Deno.systemMemoryInfo().total);
  assert(file === "" || Deno.statSync(file).isFile);
  // Beside its part, each has what it has already.
  assert(2 ** 24 < ownBytes && ownBytes < Deno.memoryUsage().rss);
  assert(shared.memory().availableBytes < availableBytes / 1000 + Deno.memoryUsage().rss);
});

/** Threads of a device in a process of its own, and the text about them. */
async function threadsWith(env: Record<string, string>, options = "{}"): Promise<string> {
  const source = `import { Device } from "./ffi/device.ts";
    using device = new Device(${options});
    console.log(device.info.threads, device.info.threadsText);`;
  const args = ["eval", "--no-config", source], cwd = new URL("../..", import.meta.url);
  const { stdout } = await new Deno.Command(Deno.execPath(), { args, cwd, env }).output();
  return new TextDecoder().decode(stdout).trim();
}

Deno.test("without a number of threads a device takes those of OMP_NUM_THREADS, in each rank", async () => {
  assertMatch(await threadsWith({ OMP_NUM_THREADS: "3" }), /^3 OMP_NUM_THREADS/);
  assertMatch(await threadsWith({ OMP_NUM_THREADS: "3" }, "{ hostSize: 8 }"), /^3 OMP_NUM_THREADS/);
  assertMatch(await threadsWith({ OMP_NUM_THREADS: "3" }, "{ threads: 1 }"), /^1(?! OMP)/);
  assertMatch(await threadsWith({ OMP_NUM_THREADS: "" }), /^\d+(?! OMP)/);
});

Deno.test("ranks of a host get equal numbers of threads", async () => {
  const env = { OMP_NUM_THREADS: "" }, alone = parseInt(await threadsWith(env));
  assert(alone >= 1);
  assertEquals(parseInt(await threadsWith(env, "{ hostSize: 2 }")), Math.max(1, Math.floor(alone / 2)));
  assertMatch(await threadsWith(env, "{ hostSize: 1000 }"), /^1 (an equal share of|the CPU quota is)/);
});

Deno.test("a device measures its matrix product on some or all of its threads", async () => {
  using device = new Device({ threads: 2 });
  assert(await device.measure({ n: 64 }) > 0);
  assert(await device.measure({ n: 64, threads: 1 }) > 0);
  assert(await device.measure({ n: 64, dtype: "bf16" }) > 0);
  const error = await assertRejects(() => device.measure({ threads: 3 }), TitanError);
  assertEquals(error.status, "INVALID_ARGUMENT");
});

Deno.test("a device measures its memory bandwidth on some or all of its threads", async () => {
  using device = new Device({ threads: 2 });
  assert(await device.measureBandwidth({ n: 1000 }) > 0);
  assert(await device.measureBandwidth({ n: 1000, threads: 1 }) > 0);
  const error = await assertRejects(() => device.measureBandwidth({ n: 0 }), TitanError);
  assertEquals(error.message, "n is out of range\n  expected: 1 to 2^32   (invalid_argument)");
});

Deno.test("numbers that are no thread counts are refused before the native side sees them", () => {
  assertThrows(
    () => new Device({ threads: -1 }),
    RangeError,
    "threads is -1\n  expected: an integer from 0 to 4294967295",
  );
  assertThrows(() => new Device({ threads: 1.5 }), RangeError, "threads is 1.5");
  assertThrows(() => new Device({ threads: 5000 }), TitanError, "more than 4096 threads");
  assertThrows(() => new Device({ hostSize: -1 }), RangeError, "hostSize is -1");
});

Deno.test("a closed device is an error at its next use", async () => {
  const device = new Device({ threads: 1 });
  device[Symbol.dispose]();
  const error = await assertRejects(() => device.measure(), TitanError);
  assertEquals(error.status, "INVALID_HANDLE");
  assertThrows(() => device[Symbol.dispose](), TitanError, "is no open device");
});
