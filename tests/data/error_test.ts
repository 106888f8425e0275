import { assertEquals } from "@std/assert";
import { DataError } from "../../data/error.ts";

Deno.test("a data error says what happened, what was expected and how to fix it", () => {
  const error = new DataError({ code: "too_short", what: "Too few tokens", expected: "more", fix: "add text" });
  assertEquals(error.message, "Too few tokens\n  expected: more\n  fix: add text   (too_short)");
  assertEquals([error.name, error.code], ["DataError", "too_short"]);
});

Deno.test("a data error made again from its problem is the same", () => {
  const error = new DataError({ code: "bad_state", what: "a", expected: "b", fix: "c" });
  assertEquals(new DataError(structuredClone(error.problem)).message, error.message);
});
