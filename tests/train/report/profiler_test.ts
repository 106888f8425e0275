import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { kernelRows, type StepProfile } from "../../../train/report/profile.ts";
import { profileAction, type ProfileCycle, Profiler } from "../../../train/report/profiler.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { twoMicrobatches } from "./profiles.ts";

const rates = { gflops: 100, gbytes: 10 };
const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1);

Deno.test("a cycle waits, warms up, and records its last steps", () => {
  const actions = (cycle: ProfileCycle, steps: number): string =>
    range(steps).map((step) => profileAction(step, cycle)[0]).join("");
  assertEquals(actions({ freq: 10, warmup: 3, active: 1 }, 20), "wwwwwwwwwrwwwwwwwwwr");
  assertEquals(range(10).map((step) => profileAction(step, { freq: 10, warmup: 3, active: 1 })).slice(5), [
    "wait",
    "warm up",
    "warm up",
    "warm up",
    "record",
  ]);
  assertEquals(actions({ freq: 3, warmup: 0, active: 2 }, 7), "wrrwrrw");
  assertEquals(actions({ freq: 1, warmup: 0, active: 1 }, 3), "rrr");
});

Deno.test("each cycle leaves a trace of its recorded steps and a table, warm-up is thrown away", async () => {
  await using temporary = await temporaryFolder();
  const folder = `${temporary.path}/out/profile_traces`, printed: string[] = [];
  const cycle = { freq: 4, warmup: 1, active: 2 };
  const profiler = new Profiler({ ...cycle, folder, rates, print: (text) => printed.push(text) });
  for (const step of range(9)) if (profileAction(step, cycle) !== "wait") await profiler.add(twoMicrobatches(step));
  assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), ["iteration_4", "iteration_8"]);
  for (const [i, step] of [4, 8].entries()) {
    const path = `${folder}/iteration_${step}/rank0_trace.json`;
    const { traceEvents } = JSON.parse(await Deno.readTextFile(path));
    const steps = traceEvents.filter((e: { name: string }) => e.name.startsWith("step "));
    assertEquals(steps.map((e: { name: string }) => e.name), [`step ${step - 1}`, `step ${step}`]);
    const { steps: listed, kernels } = JSON.parse(await Deno.readTextFile(`${folder}/iteration_${step}/profile.json`));
    assertEquals([listed, kernels], [[step - 1, step], kernelRows([step - 1, step].map(twoMicrobatches), rates)]);
    assertMatch(printed[i], new RegExp(`^Profile of steps ${step - 1} to ${step}: `));
    assertEquals(printed[i].split("\n").at(-1), `  trace: ${path} (open it in https://ui.perfetto.dev)`);
  }
  assertEquals(printed.length, 2);
});

Deno.test("the first rank writes one trace for all, the others none", async () => {
  await using temporary = await temporaryFolder();
  for (const rank of [1, 0]) {
    const folder = rank === 0 ? `${temporary.path}/traces` : null, printed: string[] = [];
    const gather = (own: readonly StepProfile[]) => Promise.resolve(rank === 0 ? [own, own, own] : undefined);
    const cycle = { freq: 1, warmup: 0, active: 1 };
    const profiler = new Profiler({ ...cycle, folder, rates, gather, print: (text) => printed.push(text) });
    await profiler.add(twoMicrobatches(1));
    const files = [...Deno.readDirSync(folder ?? temporary.path)].map(({ name }) => name);
    assertEquals([files, printed.length], rank === 0 ? [["iteration_1"], 1] : [[], 0]);
    if (rank > 0) continue;
    const { traceEvents } = JSON.parse(await Deno.readTextFile(`${folder}/iteration_1/rank0_trace.json`));
    const names = traceEvents.filter((e: { name: string }) => e.name === "process_name");
    assertEquals(names.map((e: { args: { name: string } }) => e.args.name), ["rank 0", "rank 1", "rank 2"]);
  }
});

Deno.test("what is said of a pipeline stands below the trace, of the recorded steps of all ranks, with its page beside it", async () => {
  await using temporary = await temporaryFolder();
  const printed: string[] = [], gather = (own: readonly StepProfile[]) => Promise.resolve([own, own]);
  const cycle = { freq: 2, warmup: 0, active: 2, folder: `${temporary.path}/traces`, rates, gather };
  const pipeline = (ranks: readonly (readonly StepProfile[])[]) => ({
    text: `steps ${ranks.map((steps) => steps.map(({ step }) => step))}`,
    ...(ranks[0][0].step === 1 ? { page: "drawn" } : {}),
  });
  const profiler = new Profiler({ ...cycle, pipeline, print: (text) => printed.push(text) });
  for (const step of range(4)) await profiler.add(twoMicrobatches(step));
  const page = `${cycle.folder}/iteration_2/pipeline.html`;
  assertEquals([printed[1], printed[3]], [`steps 1,2,1,2\n  picture: ${page}`, "steps 3,4,3,4"]);
  assertEquals(await Deno.readTextFile(page), "drawn");
  const files = [...Deno.readDirSync(`${cycle.folder}/iteration_4`)].map(({ name }) => name).sort();
  assertEquals(files, ["profile.json", "rank0_trace.json"]);
});

Deno.test("a folder that cannot be made is an error before any step", async () => {
  await using temporary = await temporaryFolder();
  await Deno.writeTextFile(`${temporary.path}/file`, "");
  const options = { freq: 1, warmup: 0, active: 1, folder: `${temporary.path}/file/traces`, rates, print: () => {} };
  assertThrows(() => new Profiler(options));
});

Deno.test("a trace that cannot be written is told below its table, leaves no part of a file, and ends nothing", async () => {
  await using temporary = await temporaryFolder();
  const folder = `${temporary.path}/traces`, printed: string[] = [];
  const options = { freq: 1, warmup: 0, active: 1, folder, rates, print: (text: string) => printed.push(text) };
  const profiler = new Profiler(options);
  await Deno.writeTextFile(`${folder}/iteration_1`, "no folder");
  await profiler.add(twoMicrobatches(1));
  await profiler.add(twoMicrobatches(2));
  const path = (step: number) => `${folder}/iteration_${step}/rank0_trace.json`;
  assertMatch(printed[0], /^Profile of step 1: /);
  const last = printed[0].split("\n").at(-1)!;
  assert(last.startsWith(`  trace: none, as ${path(1)} cannot be written: `), last);
  assertEquals(printed[1].split("\n").at(-1), `  trace: ${path(2)} (open it in https://ui.perfetto.dev)`);
});
