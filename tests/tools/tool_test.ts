import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DataError } from "../../data/error.ts";
import { runCommand, runTool } from "../../tools/tool.ts";

/** The exit code of a tool with two arguments, and what it printed as errors. */
function outcome(args: string[], run: (...args: string[]) => number | void = () => {}): [number, string[]] {
  const { error } = console, errors: string[] = [];
  console.error = (text: unknown) => errors.push(String(text));
  try {
    return [runTool("tools/a.ts IN_FILE OUT ...", args, run), errors];
  } finally {
    console.error = error;
  }
}

Deno.test("a tool without all of its arguments prints its usage, and does not run", () => {
  const usage = ["Usage: deno run --allow-read --allow-write tools/a.ts IN_FILE OUT ..."], run = () => 5;
  for (const args of [[], ["a"], ["--help"], ["a", "b", "--help"]]) assertEquals(outcome(args, run), [1, usage]);
  assertEquals(outcome(["a", "b"], run), [5, []]);
  assertEquals(outcome(["a", "b", "c"]), [0, []]);
});

Deno.test("of a user's error a tool prints the message alone, another one goes through", () => {
  const failing = (error: Error) => () => {
    throw error;
  };
  assertEquals(outcome(["a", "b"], failing(new Deno.errors.NotFound("no a"))), [1, ["error: no a"]]);
  assertEquals(outcome(["a", "b"], failing(new SyntaxError("no JSON"))), [1, ["error: no JSON"]]);
  assertThrows(() => outcome(["a", "b"], failing(new TypeError("a mistake of ours"))), TypeError);
});

Deno.test("of an error that tells the user something a command prints the message alone, another one goes through", async () => {
  const { error } = console, errors: string[] = [];
  console.error = (text: unknown) => errors.push(String(text));
  try {
    const cut = new DataError({
      code: "damaged_shard",
      what: "Cannot read a.gz",
      expected: "gzip",
      fix: "download it anew",
    });
    assertEquals([await runCommand(() => Promise.resolve(3)), await runCommand(() => Promise.reject(cut))], [3, 1]);
    assertEquals(errors, [`error: ${cut.message}`]);
    await assertRejects(() => runCommand(() => Promise.reject(new TypeError("a mistake of ours"))), TypeError);
  } finally {
    console.error = error;
  }
});
