import { assertEquals } from "@std/assert";
import { parseArgs } from "@std/cli";

Deno.test("arguments become flags, nested by their dots, and the rest", () => {
  const args = parseArgs(["--training.steps", "5", "--training.lr=3e-4", "run", "--help"], { boolean: ["help"] });
  assertEquals(args, { _: ["run"], help: true, training: { steps: 5, lr: 3e-4 } });
});

Deno.test("text flags keep their spelling, defaults fill in, and -- ends the flags", () => {
  const args = parseArgs(["--name", "007", "--", "--not-a-flag"], { string: ["name"], default: { n: 1 }, "--": true });
  assertEquals(args, { _: [], name: "007", n: 1, "--": ["--not-a-flag"] });
});

Deno.test("of a repeated flag the last value counts, unless it collects", () => {
  const args = parseArgs(["--a.b", "1", "--a.b", "2", "--c", "x", "--c", "y", "--d", "z"], { collect: ["c", "d"] });
  assertEquals(args, { _: [], a: { b: 2 }, c: ["x", "y"], d: ["z"] });
});
