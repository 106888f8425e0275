import { assertEquals } from "@std/assert";
import { CheckpointError } from "../../../train/checkpoint/error.ts";

Deno.test("an error of a checkpoint says what happened, what was expected, and what to do", () => {
  const error = new CheckpointError("The file a is short", "12 bytes", "put it back");
  assertEquals([error.name, error instanceof Error], ["CheckpointError", true]);
  assertEquals(error.message, "The file a is short\n  expected: 12 bytes\n  fix: put it back   (checkpoint)");
});
