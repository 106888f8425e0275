import { assertEquals, assertThrows } from "@std/assert";
import { DataError } from "../../data/error.ts";
import { attempt, isTaken, refuse } from "../../data/shard.ts";

const problem = { code: "bad_document", what: "no", expected: "yes", fix: "do" } as const;

Deno.test("every k-th document from a place on is taken", () => {
  const taken = Array.from({ length: 12 }, (_, n) => n).filter((n) => isTaken({ from: 5, every: 3, offset: 1 }, n));
  assertEquals(taken, [7, 10]);
});

Deno.test("bad data is handed on and left out, and an error of ours is not", () => {
  const bad: string[] = [],
    fail = (error: Error) => () => {
      throw error;
    };
  assertEquals(attempt(() => 3, refuse), 3);
  assertEquals(attempt(fail(new DataError(problem)), ({ code }) => void bad.push(code)), undefined);
  assertEquals(bad, ["bad_document"]);
  assertThrows(() => attempt(fail(new DataError(problem)), refuse), DataError);
  assertThrows(() => attempt(fail(new TypeError("ours")), () => {}), TypeError);
});
