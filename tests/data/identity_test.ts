import { assertEquals, assertNotEquals } from "@std/assert";
import { hashOf } from "../../data/identity.ts";

Deno.test("equal values have one hash, and others another", () => {
  assertEquals(hashOf(["a", 1]), hashOf(["a", 1]));
  assertEquals(hashOf(["a", 1]).length, 16);
  assertNotEquals(hashOf(["a", 1]), hashOf(["a1"]));
});
