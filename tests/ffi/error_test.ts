import { assertEquals, assertThrows } from "@std/assert";
import { check, errorStruct, TitanError } from "../../ffi/error.ts";
import { Status } from "../../ffi/symbols.ts";

Deno.test("a good status leaves the error struct unread", () => {
  const error = errorStruct();
  error.bytes.fill(255);
  check(Status.OK, error);
});

Deno.test("a bad status becomes an error with the facts of the struct, and a line each for expectation and fix", () => {
  const error = errorStruct();
  error.bytes.set(new TextEncoder().encode("it broke; expected: more; fix: add; then run"), 16);
  error.bytes.set(new TextEncoder().encode("gemm"), 1040);
  error.set("section", 2);
  error.set("instruction", -1);
  const thrown = assertThrows(() => check(Status.NOT_FINITE, error), TitanError);
  assertEquals(thrown.message, "it broke\n  expected: more\n  fix: add; then run   (not_finite)");
  const { name, status, kernel, scope, section, instruction } = thrown;
  assertEquals({ name, status, kernel, scope, section, instruction }, {
    name: "TitanError",
    status: "NOT_FINITE",
    kernel: "gemm",
    scope: undefined,
    section: 2,
    instruction: undefined,
  });
});
