import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { Device } from "../../ffi/device.ts";
import { TitanError } from "../../ffi/error.ts";
import { library } from "../../ffi/library.ts";

library(); // opened here: inside a test the sanitizer would call it a leak

Deno.test("a device says what it is", () => {
  using device = new Device({ threads: 3 });
  const { threads, vectorBits, level, memoryBytes, processor, product } = device.info;
  assertEquals(threads, 3);
  assert([128, 256, 512].includes(vectorBits));
  assert(level.length > 2);
  assert(memoryBytes > 2 ** 28);
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

Deno.test("without a number of threads a device takes all", () => {
  using device = new Device();
  assert(device.info.threads >= 1);
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
});

Deno.test("a closed device is an error at its next use", async () => {
  const device = new Device({ threads: 1 });
  device[Symbol.dispose]();
  const error = await assertRejects(() => device.measure(), TitanError);
  assertEquals(error.status, "INVALID_HANDLE");
  assertThrows(() => device[Symbol.dispose](), TitanError, "is no open device");
});
