/** What can be told without other processes; with them: tests/native/comm_test.ts.
 * @module */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { Comm, type CommOptions } from "../../ffi/comm.ts";
import { Device } from "../../ffi/device.ts";
import { TitanError } from "../../ffi/error.ts";
import { library } from "../../ffi/library.ts";
import { Program } from "../../ffi/program.ts";
import { encoded } from "./encoded.ts";

library(); // opened here: inside a test the sanitizer would call it a leak

Deno.test("a communication module that is not there is named with the way to build it", async () => {
  using device = new Device();
  const error = await assertRejects(() => Comm.open(device, { module: "nowhere" }), TitanError);
  assertEquals(error.status, "COMMUNICATION");
  assertStringIncludes(error.message, "libtitan_nowhere.so");
  assertStringIncludes(error.message, "fix: deno task setup --mpi");
});

Deno.test("the name of a communication module is no path", async () => {
  using device = new Device();
  const error = await assertRejects(() => Comm.open(device, { module: "../nowhere" }), TitanError);
  assertEquals(error.status, "INVALID_ARGUMENT");
});

Deno.test("time-outs are whole milliseconds from 1", async () => {
  using device = new Device();
  await assertRejects(() => Comm.open(device, { timeoutMs: 0 }), TitanError, "a time-out is out of range");
  await assertRejects(() => Comm.open(device, { timeoutMs: 0.5 }), RangeError);
});

Deno.test("a simulated link and a flight recorder have sizes that can be", async () => {
  using device = new Device();
  const refused = (options: CommOptions, message: string) =>
    assertRejects(() => Comm.open(device, options), TitanError, message);
  await refused({ link: { bytesPerSecond: -1, latencyNs: 0 } }, "the simulated bandwidth is out of range");
  await refused({ link: { bytesPerSecond: NaN, latencyNs: 0 } }, "the simulated bandwidth is out of range");
  await refused({ link: { bytesPerSecond: 1, latencyNs: 61e9 } }, "the simulated latency is out of range");
  await refused({ records: 2e6 }, "too many records");
});

Deno.test("a program with collectives is refused by a device that works alone", async () => {
  using device = new Device({ threads: 1 });
  const bytes = encoded({
    arenaBytes: 64,
    tensors: [{ offset: 0, dims: [4] }, { offset: 32, dims: [4] }],
    sections: {
      step: [{ kernel: "all_reduce", operands: [0, 1], attributes: [1n, 2n, 0n, 1n, 0n, 0n], scope: "layers.0" }],
    },
  });
  const error = await assertRejects(() => Program.create(device, bytes), TitanError);
  assertEquals([error.status, error.kernel, error.scope], ["INVALID_PROGRAM", "all_reduce", "layers.0"]);
  assertStringIncludes(error.message, "the device works alone");
});
