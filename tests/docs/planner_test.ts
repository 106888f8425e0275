/** The planner's page: what its fields say, what its worker answers, and that its scripts need nothing but a browser. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { type Answer, answer, tomlOf } from "../../docs/planner/answer.ts";
import { addressOf, argumentsOf, type Choice, choiceOf, groups, OTHERS, standard } from "../../docs/planner/choices.ts";
import { bundle, plannerPage } from "../../tools/planner.ts";
import { loadConfig } from "../../train/config/config.ts";

const nothing = (path: string): string => {
  throw new Error(`read ${path}`);
};

/** A small choice, quick to plan. */
const small: Choice = {
  ...standard,
  "model.flavor": "debugmodel",
  "parallelism.data_parallel_shard_degree": "2",
  "training.seq_len": "64",
};

async function answers(args: readonly string[]): Promise<Answer[]> {
  const all: Answer[] = [];
  await answer(args, (piece) => all.push(piece));
  return all;
}

Deno.test("every field is a flag that the command line takes, with each of its options", async () => {
  for (const { flag, options, value } of groups.flatMap((group) => group.fields)) {
    if (flag === OTHERS) continue;
    for (const option of options ?? [value]) {
      const stages: Choice = flag.endsWith("schedule") ? { "parallelism.pipeline_parallel_degree": "2" } : {};
      const choice: Choice = { ...small, [flag]: option, ...stages };
      assert(option === "" || argumentsOf(choice).includes(`--${flag}=${option}`) || flag.endsWith("memory_budget"));
      await loadConfig([...argumentsOf(choice), "--dry-run"], nothing);
    }
  }
});

Deno.test("an address holds a choice, and nothing that is standard", () => {
  assertEquals(addressOf(standard), "");
  const choice = { ...small, [OTHERS]: "--model.n_layers 3 --comm.trace_buf_size=7", tokens: "" };
  assertEquals(choiceOf(`#${addressOf(choice)}`), choice);
  assertEquals(choiceOf("#model.flavor=900B&nonsense=1"), standard);
  assertEquals(argumentsOf(choice).slice(-3), ["--model.n_layers", "3", "--comm.trace_buf_size=7"]);
});

Deno.test("a choice is answered by its plan, whose TOML file asks for the same run", async () => {
  const args = argumentsOf(small), all = await answers(args);
  assertEquals(all.map(({ kind }) => kind), ["stage", "stage", "plan"]);
  const plan = all.find((piece) => piece.kind === "plan")!;
  assertEquals([plan.title, plan.fits], ["llama3/debugmodel on dp_shard 2 = 2 ranks", true]);
  assertMatch(plan.html, /<h2>Time of a step: [\d.]+ [mu]s/);
  const { toml, flags } = tomlOf(args), other = "[training]\nsteps = 7";
  const read = (text: string) => loadConfig(["--config=plan.toml", ...flags, "--dry-run"], () => text);
  const { config } = await read(toml), asked = (await loadConfig([...args, "--dry-run"], nothing)).config;
  assertEquals({ ...config, job: null }, { ...asked, job: null });
  assert((await read(other)).config.training.seq_len !== asked.training.seq_len);
  assertEquals(flags.map((flag) => flag.replace(/=.*/, "")), [
    "--device-memory",
    "--device-tflops",
    "--device-bandwidth",
    "--link",
    "--tokens",
  ]);
});

Deno.test("a plan that does not fit is followed by what to change, and a choice that cannot be by why", async () => {
  const large = await answers(argumentsOf({ ...small, "training.local_batch_size": "64", "device-memory": "160MiB" }));
  assertEquals(large.map(({ kind }) => kind), ["stage", "stage", "plan", "stage", "fixes"]);
  const fixes = large.find((piece) => piece.kind === "fixes")!;
  assertMatch(fixes.lines.join("\n"), /training\.local_batch_size \d+ instead of 64/);
  const refused = (await answers(argumentsOf({ ...small, "parallelism.tensor_parallel_degree": "3" }))).at(-1)!;
  assert(refused.kind === "refused");
  assertStringIncludes(refused.text, "expected: a multiple of 6");
  const file = (await answers([...argumentsOf(small), "--config", "my.toml"])).at(-1)!;
  assert(file.kind === "refused");
  assertStringIncludes(file.text, "this page reads no files");
});

Deno.test("the bundled worker plans without Deno, and answers what the compiler answers here", async () => {
  const script = `delete globalThis.Deno; ${await bundle("worker.ts")}`;
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const worker = new Worker(url, { type: "module" });
  const args = argumentsOf(small), done = Promise.withResolvers<void>(), pieces: (Answer & { seconds?: number })[] = [];
  worker.onmessage = ({ data }) => data.kind === "done" ? done.resolve() : pieces.push(data);
  worker.onerror = (event) => {
    event.preventDefault();
    done.reject(new Error(event.message));
  };
  worker.postMessage(args);
  await done.promise.finally(() => worker.terminate());
  URL.revokeObjectURL(url);
  const [here, there] = [await answers(args), pieces].map((all) => all.find((piece) => piece.kind === "plan")!);
  assertEquals(there.html, here.html);
});

Deno.test("the page is one piece: it loads nothing, and its scripts end where they should", async () => {
  const page = await plannerPage();
  assertEquals([page.match(/<script/g)!.length, page.match(/<\/script>/g)!.length], [2, 2]);
  assertEquals(page.match(/\b(src|href)="(?!data:)[^"]*"|@import|\bimport\s*[({"]/g), null);
  assert(!/\/\* (style|worker|page) \*\//.test(page));
});
