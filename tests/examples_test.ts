/** Examples are run by the very commands in their first lines. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { readTree } from "../tools/check_tree.ts";
import { MPI, testRanks } from "./native/mpirun.ts";

const root = fromFileUrl(new URL("..", import.meta.url));

/** The commands in the comment that a file begins with. */
function commandsOf(name: string): string[] {
  const [header] = Deno.readTextFileSync(`${root}/examples/${name}`).split("*/");
  return [...header.matchAll(/^ \* ((?:npx|mpirun) .*)$/gm)].map(([, command]) => command);
}

const outputs = new Map<string, Promise<string>>();

/** What a command prints, which must end with 0; each is run once. */
function output(command: string): Promise<string> {
  if (!outputs.has(command)) outputs.set(command, run(command));
  return outputs.get(command)!;
}

async function run(command: string): Promise<string> {
  const env = { NO_COLOR: "1", ...(command.startsWith("mpirun") ? MPI : {}) };
  const { code, stdout, stderr } = await new Deno.Command("sh", { args: ["-c", command], cwd: root, env }).output();
  assertEquals(code, 0, `${command}\n${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

/** Lines of a step, and of text that is read again. */
const LINES = String
  .raw`(step \d+: loss \d\.\d{3}\n|epoch \d: all of the text has been read by step \d+, and is read again\n)+`;

const PRINTS: Record<string, RegExp> = {
  "float8.ts":
    /^(f32|bf16|float8): loss [1-6]\.\d{3}\n(bf16|float8): loss [1-6]\.\d{3}\nfloat8: loss [1-6]\.\d{3}\n14 matrices .*\n$/,
  "fine_tune_chat.ts":
    /^step 1: loss 6\.\d{3}, \d+\.\d % of the row is padding\n((step|epoch) .*\n)+step 300: loss 0\.0\d\d, .*\nThe capital of Italy is Rome\.\n$/,
  "generate_from_checkpoint.ts":
    /^(epoch .*\n)*step 40: loss [0-5]\.\d{3}\nseed 1: (".+")\nseed 1: \2\nseed 2: (?!\2)".+"\n$/,
  "gradient.ts": /^graph overlap\n[^]*\n(d overlap \/ d x\[\d\] = (-?\d+\.\d{6}), by differences \2\n){6}$/,
  "mixture_of_sources.ts": /^(step \d0: loss [1-7]\.\d{3}, read book 0\.\d\d times, changes \d\.\d\d times\n){3}$/,
  "mixture_of_experts.ts": new RegExp(String.raw`^step 1: loss 7\.6\d\d\n${LINES}step 40: loss [2-5]\.\d{3}\n$`),
  "own_attention.ts": new RegExp(String.raw`^step 1: loss [78]\.\d{3}\n${LINES}step 30: loss [1-6]\.\d{3}\n$`),
  "own_loss.ts":
    /^(epoch .*\n)*z-loss times 0: loss [2-6]\.\d{3}\n(epoch .*\n)*z-loss times 0\.01: loss [2-6]\.\d{3}\n$/,
  "own_model_tp.ts": new RegExp(String.raw`^step 1: loss 7\.6\d\d\n${LINES}step 40: loss [2-5]\.\d{3}\n$`),
  "own_optimizer.ts": /^step 1: loss [78]\.\d{3}\n((step|epoch) .*\n)+step 60: loss [2-6]\.\d{3}\n$/,
  "own_pipeline_schedule.ts":
    /^all forwards first: ranks wait [1-9].* keep 4 and 4 microbatches\na backward as soon as can be: ranks wait [1-9].* keep 2 and \d microbatches\n$/,
  "own_schedule.ts":
    /^step 5: rate 5\.00e-3, .*\n([^]*\n)?step 20: rate 5\.00e-3, .*\n(epoch .*\n)*step 25: rate 3\.45e-3, .*\n(epoch .*\n)*step 30: rate 6\.10e-4, loss \d\.\d{3}\n$/,
  "own_text.ts": new RegExp(String.raw`^step 1: loss [78]\.\d{3}\n${LINES}step 50: loss [2-6]\.\d{3}\n$`),
  "own_tokenizer.ts":
    /^\d+ tokens; "A tensor" is 8 of them, which spell "A tensor"\nstep 1: loss [45]\.\d{3}\n((step|epoch) .*\n)+step 60: loss [12]\.\d{3}\n$/,
  "plan_64_devices.ts": /^(dp_shard=[\w=,]+: \d+\.\d GB of a device, fits, at least [1-9]\d{3,} tokens a second\n){3}$/,
};

Deno.test("each example says how it is run, and what it prints is held", () => {
  const files = [...readTree(root.replace(/\/$/, "")).keys()].filter((path) => /^examples\/.*\.ts$/.test(path));
  assertEquals(files.toSorted(), Object.keys(PRINTS).map((name) => `examples/${name}`).toSorted());
  for (const name of Object.keys(PRINTS)) assert(commandsOf(name).length > 0, `${name} has no command`);
});

for (const [name, prints] of Object.entries(PRINTS)) {
  for (const command of commandsOf(name)) {
    const test = command.startsWith("mpirun") ? testRanks : Deno.test;
    test(`examples/${name} runs by its command: ${command}`, async () => assertMatch(await output(command), prints));
  }
}

testRanks(
  "experts that four ranks share out two by two, or two ranks by one each, train as they do on one",
  async () => {
    const [alone, four] = commandsOf("mixture_of_experts.ts");
    assertEquals(await output(four), await output(alone));
    const two = four.replace("-n 4", "-n 2").replace(".ts 4 2", ".ts 2 2");
    assertEquals([two !== four, await output(two)], [true, await output(alone)]);
  },
);

testRanks(
  "a model of one's own, with a plan of a few lines, trains on 2 x 2 ranks and on 1 x 2 as it does on one",
  async () => {
    const [alone, four] = commandsOf("own_model_tp.ts");
    assertEquals(await output(four), await output(alone));
    const two = four.replace("-n 4", "-n 2").replace(".ts 2 2", ".ts 1 2");
    assertEquals([two !== four, await output(two)], [true, await output(alone)]);
  },
);
