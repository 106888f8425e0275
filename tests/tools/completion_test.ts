import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { completion, trainFlags } from "../../tools/completion.ts";
import { readArguments } from "../../train/config/arguments.ts";

const COMMANDS = ["train", "plan", "generate"];

/** What is printed for a shell. */
function printed(...args: string[]): { code: number; text: string } {
  const { log, error } = console, lines: string[] = [];
  console.log = console.error = (text: unknown) => lines.push(`${text}`);
  try {
    return { code: completion(args, COMMANDS), text: lines.join("\n") };
  } finally {
    Object.assign(console, { log, error });
  }
}

/** What a shell proposes for the last of some words. */
async function proposed(...words: string[]): Promise<string[]> {
  const script = `${printed("bash").text}
COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")})
COMP_CWORD=${words.length - 1}
_titan
printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { code, stdout, stderr } = await new Deno.Command("bash", { args: ["--norc", "-c", script] }).output();
  assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
  return new TextDecoder().decode(stdout).split("\n").filter((line) => line !== "");
}

Deno.test("every flag that is proposed is one that train reads", () => {
  for (const { name, isValued, values } of trainFlags()) {
    if (name === "config" || name === "mesh") continue; // they read further
    const { problems } = readArguments([`--${name}`, ...isValued ? [values[0] ?? "1"] : []]);
    const unread = problems.filter(({ what }) => /lacks its value|takes no value|unexpected/.test(what));
    assertEquals(unread, [], name);
  }
});

Deno.test("bash completes commands, keys of train and their values, also behind npx", async () => {
  assertEquals(await proposed("titan", ""), COMMANDS);
  assertEquals(await proposed("titan", "ge"), ["generate"]);
  assertEquals(await proposed("titan", "train", "--training.st"), ["--training.steps"]);
  assertEquals(await proposed("npx", "-y", "deno", "task", "train", "--training.st"), ["--training.steps"]);
  assertEquals(await proposed("deno", "task", "train", "--device-m"), ["--device-memory"]);
  assertEquals(await proposed("npx", "titan", "ge"), ["generate"]);
  assertEquals(await proposed("npx", "titan", "train", "--training.st"), ["--training.steps"]);
  assertEquals(await proposed("./run_train.sh", "--validation.no_e"), ["--validation.no_enable"]);
  const modes = await proposed("titan", "plan", "--activation_checkpoint.mode", "");
  assertEquals(modes.toSorted(), ["full", "memory_budget", "none", "selective"]);
  assertEquals(await proposed("titan", "plan", "--activation_checkpoint.mode", "se"), ["selective"]);
});

Deno.test("what libtitan does not know is left to the shell", async () => {
  assertEquals(await proposed("titan", "train", "--config", "conf"), []);
  assertEquals(await proposed("titan", "generate", "--from"), []);
  assertEquals(await proposed("deno", "run", "--allow"), []);
});

Deno.test("fish is told every flag, with values where these are few", () => {
  const { code, text } = printed("fish");
  assertEquals(code, 0);
  assertEquals(text.match(/^complete .* -l [\w.-]+/gm)!.length, trainFlags().length);
  assertStringIncludes(text, "-l activation_checkpoint.mode -d '");
  assert(/-l training\.dtype .*-xa '(\w+ ){2}\w+'/.test(text));
});

Deno.test("another shell is refused with those that there are", () => {
  const { code, text } = printed("tcsh");
  assertEquals(code, 1);
  assertStringIncludes(text, "expected: bash, zsh, fish");
  assertEquals(printed("--help").code, 0);
});
