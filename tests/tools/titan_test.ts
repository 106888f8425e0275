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

Deno.test("what is refused ends with 1, is told on standard error alone, and first says that it is an error", async () => {
  const refused = [
    ["trian"],
    ["train", "--nope"],
    ["plan", "--training.steps=few"],
    ["convert", "a"],
    ["data"],
    ["data", "nope"],
    ["data", "download"],
    ["data", "tokenizer", "learn"],
    ["checkpoint", "nope"],
    ["view", "/nowhere"],
    ["setup", "--nope"],
    ["completion"],
    ["completion", "tcsh"],
  ];
  for (const args of refused) {
    const { code, out, error } = await run(...args);
    assertEquals([code, out, error.slice(0, 7)], [1, "", "error: "], args.join(" "));
    assertMatch(error, /\n {2}expected: .*\n {2}fix: ./, args.join(" "));
  }
});

Deno.test("a plan that does not fit into a device is whole, and ends with 1", async () => {
  const sizes = ["--model.n_layers=1", "--training.seq_len=64"];
  const { code, out } = await run("plan", ...sizes, "--device-memory", "1MiB");
  assertEquals([code, out.includes("Memory (bytes are planned")], [1, true]);
  assertEquals((await run("plan", ...sizes, "--device-memory", "80GB")).code, 0);
});

Deno.test("the exit codes that help tells are those of the page of errors", async () => {
  const told = (await run("train", "--help")).out.match(/Exit codes: ([^]*?)\n\n/)![1];
  const page = await Deno.readTextFile(new URL("../../docs/errors.md", import.meta.url));
  const table = /\| code +\| means[^]*?\n\n/.exec(page)![0], codes = /\b(?:128 \+ n|\d+)\b/g;
  const listed = table.split("\n").flatMap((line) => line.split("|")[1]?.match(codes) ?? []);
  assertEquals(new Set(told.match(codes)), new Set(listed));
});

Deno.test("the package's module is this entry", async () => {
  const { code, out } = await ended(spawn(["help"]));
  assertEquals([code, out.startsWith("Usage: deno run -A mod.ts COMMAND")], [0, true]);
});
