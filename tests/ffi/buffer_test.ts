import { assertEquals, assertThrows } from "@std/assert";
import { Actions, Struct } from "../../ffi/buffer.ts";

Deno.test("a struct keeps numbers where C has them, little-endian, and texts up to their first zero", () => {
  const error = new Struct("titan_error");
  assertEquals(error.bytes.length, 16 + 1024 + 64 + 256);
  error.set("status", 3);
  error.set("instruction", -1);
  error.bytes.set(new TextEncoder().encode("gemm\0left over"), 16 + 1024);
  assertEquals([...error.bytes.subarray(0, 16)], [3, 0, 0, 0, 0, 0, 0, 0, ...Array(8).fill(255)]);
  assertEquals([error.get("status"), error.get("instruction")], [3, -1]);
  assertEquals([error.text("kernel"), error.text("scope")], ["gemm", ""]);
  assertThrows(() => error.get("kernel"), TypeError, 'fix: use text("kernel")');
});

Deno.test("a struct keeps numbers that are not whole", () => {
  const traffic = new Struct("titan_comm_traffic");
  traffic.set("sent_bytes", 1 / 3);
  assertEquals([traffic.get("sent_bytes"), new Float64Array(traffic.bytes.buffer)[2]], [1 / 3, 1 / 3]);
});

Deno.test("a text that fills its field ends with it", () => {
  const error = new Struct("titan_error");
  error.bytes.fill(97, 1040, 1040 + 64 + 5);
  assertEquals(error.text("kernel"), "a".repeat(64));
});

Deno.test("actions are packed one after the other", () => {
  const actions = new Actions([{ section: 1 }, { section: 2, flags: 3, inputBase: 2 ** 40, outputBase: 8 }]);
  assertEquals(actions.length, 2);
  const words = new Uint32Array(actions.bytes.buffer);
  assertEquals([...words], [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 256, 8, 0]);
});

Deno.test("an action with a number that C would take for another is refused by name", () => {
  assertThrows(
    () => new Actions([{ section: 0 }, { section: 0, inputBase: -8 }]),
    RangeError,
    "inputBase of action 1 is -8",
  );
  assertThrows(() => new Actions([{ section: 0, flags: 2 ** 32 }]), RangeError, "flags of action 0 is 4294967296");
  assertThrows(() => new Actions([{ section: NaN }]), RangeError, "section of action 0 is NaN");
});
