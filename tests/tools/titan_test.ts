import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { titan } from "../../tools/titan.ts";
import { ended, spawn } from "../train/command/command_line.ts";

/** Runs a command in this process. */
async function run(...args: string[]): Promise<{ code: number; out: string; error: string }> {
  const { log, error } = console, out: string[] = [], errors: string[] = [];
  [console.log, console.error] = [(text: unknown) => out.push(`${text}`), (text: unknown) => errors.push(`${text}`)];
  try {
    return { code: await titan(args), out: out.join("\n"), error: errors.join("\n") };
  } finally {
    Object.assign(console, { log, error });
  }
}

Deno.test("help names all commands, each of which tells its own usage", async () => {
  const { code, out, error } = await run("help");
  assertEquals([code, error], [0, ""]);
  const names = [...out.matchAll(/^ {2}(\w+) {2,}\S/gm)].map((m) => m[1]);
  assertEquals(names, [
    "train",
    "plan",
    "generate",
    "convert",
    "data",
    "checkpoint",
    "view",
    "setup",
    "completion",
    "bench",
  ]);
  for (const name of ["train", "plan", "convert", "data", "checkpoint", "view", "setup", "completion"]) {
    const { code, out } = await run(name, "--help");
    assertEquals([code, /^Usage: /.test(out)], [0, true], `${name}: ${out}`);
  }
  assertMatch((await run("data", "download", "--help")).out, /^Usage: .*download/);
  assertMatch((await run("data", "tokenizer", "--help")).out, /^Usage: .*tokenizer/);
});

Deno.test("a plan is a dry run, and keys without a command are of train", async () => {
  const sizes = ["--model.n_layers=1", "--training.seq_len=64"];
  const plan = await run("plan", ...sizes);
  assertEquals([plan.code, plan.error], [0, ""]);
  assertStringIncludes(plan.out, "Memory (bytes are planned");
  assertEquals((await run("--dry-run", ...sizes)).out.includes("Memory (bytes are planned"), true);
});

Deno.test("an unknown command is refused with the nearest one, and a command's mistakes are told without a stack", async () => {
  const { code, error } = await run("trian");
  assertEquals([code, error.split("\n").at(-1)], [1, "  fix: write train"]);
  const missing = await run("checkpoint", "show", "/nowhere/step-1");
  assertEquals(missing.code, 1);
  assertMatch(missing.error, /^error: .*\/nowhere\/step-1/);
  assert(!missing.error.includes("    at "));
});

Deno.test("the package's module is this entry", async () => {
  const { code, out } = await ended(spawn(["help"]));
  assertEquals([code, out.startsWith("Usage: deno run -A mod.ts COMMAND")], [0, true]);
});
