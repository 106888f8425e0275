import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { gzipSync } from "node:zlib";
import { shardName } from "../../../data/c4.ts";
import type { Config } from "../../../train/config/config.ts";
import { RunFolder } from "../../../train/command/run_folder.ts";
import { generate } from "../../../train/generate/generate.ts";
import { c4Lines, someTexts, temporaryFolder } from "../../data/fixture.ts";
import { readFolder } from "../report/event_reader.ts";
import { assertRefused, command, ended, type Outcome, reportsIn, root, spawn, tinyRun } from "./command_line.ts";

Deno.test("a run reports its steps, and says at its end that the weights are gone", async () => {
  await using tiny = await tinyRun();
  const { code, out, errors } = await command(...tiny.config);
  assertEquals([code, errors], [0, []]);
  assertEquals([...out.matchAll(/^step: +(\d) {2}loss: +\d\.\d{5} {2}grad_norm:/gm)].map((m) => m[1]), ["1", "2", "3"]);
  assertMatch(out, /\n {2}model {3}[\d,]+ parameters, 32 tokens per step, \d+\.\d MFLOP per token\n/);
  assertMatch(out, /\n {2}data {4}the train part of the sample/);
  assertMatch(out, /\n {2}device {2}.* 1 thread, .* GFLOP\/s/);
  assertEquals(
    out.split("\n").at(-1),
    "weights are not kept: --checkpoint.enable saves them, and a run that is stopped goes on where it was",
  );
  assertEquals(out.match(/weights/g)?.length, 1);
});

Deno.test("one's own text is trained on as bytes, a share of it is held out, epochs are counted, and text comes out", async () => {
  await using tiny = await tinyRun();
  const notes = `${tiny.folder}/notes`, saved = `${tiny.folder}/out/checkpoint/step-3`;
  await Deno.mkdir(notes);
  const lines = someTexts(6).map((body) => JSON.stringify({ body })).join("\n");
  for (const name of ["a.md", "b.txt"]) await Deno.writeTextFile(`${notes}/${name}`, someTexts(1, 50)[0]);
  await Deno.writeTextFile(`${notes}/c.jsonl`, lines);
  const keys = { "training.dataset": "text", "training.dataset_path": notes, "data.text_field": "body" };
  const flags = Object.entries({ ...keys, "data.tokenizer": "bytes" }).map(([name, value]) => `--${name}=${value}`);
  const validation = ["--validation.enable", "--validation.seq_len=8", "--validation.local_batch_size=2"];
  const { code, out, errors } = await command(...tiny.config, ...flags, ...validation, "--checkpoint.enable");
  assertEquals([code, errors], [0, []]);
  assertStringIncludes(out, `\n  data    7 documents (1 more are held out), in 3 text files (${notes})\n`);
  assertMatch(out, /\nstep: {2}3 .* epoch: 0\.\d\d\n/);
  assertMatch(out, /\n {2}\d+ held-out tokens: loss/);
  const report = reportsIn(`${tiny.folder}/out/metrics.jsonl`).at(-2)!;
  assert(report.epoch > 0 && report.epoch < 1, JSON.stringify(report));
  assertEquals(JSON.parse(Deno.readTextFileSync(`${saved}/state.json`)).tokenizer, "bytes");
  const asked = { prompt: "wé", maxNewTokens: 4, temperature: 0, threads: 1 };
  await Array.fromAsync(
    generate(saved, { ...asked, done: ({ promptTokens }) => assertEquals(promptTokens, 4, "BOS, and three bytes") }),
  );
});

Deno.test("a run begins a new file of numbers, and keeps that of the run before and its traces", async () => {
  await using tiny = await tinyRun();
  const profile = ["--profiling.enable_profiling", "--profiling.profile_freq=1", "--profiling.profiler_warmup=0"];
  assertEquals((await command(...tiny.config, ...profile)).code, 0);
  const { code, out } = await command(...tiny.config, ...profile, "--training.steps", "1");
  assertEquals(code, 0);
  const folder = `${tiny.folder}/out`;
  assertStringIncludes(out, `\n  kept    metrics.jsonl of an earlier run as ${folder}/metrics.1.jsonl\n`);
  const lines = (name: string) =>
    Deno.readTextFileSync(`${folder}/${name}`).trimEnd().split("\n").map((line) => JSON.parse(line));
  const [old, now] = [lines("metrics.1.jsonl"), lines("metrics.jsonl")];
  const shown = (line: Record<string, unknown>) =>
    line.run ? `run of ${(line.run as { config: Config }).config.training.steps}` : line.end ? "end" : line.step;
  assertEquals([old.map(shown), now.map(shown)], [["run of 3", 1, 2, 3, "end"], ["run of 1", 1, "end"]]);
  assertEquals(now[1]["loss_metrics/global_avg_loss"], old[1]["loss_metrics/global_avg_loss"]);
  assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), [
    "metrics.1.jsonl",
    "metrics.jsonl",
    "profile_traces",
    "profile_traces.1",
  ]);
  assertEquals([...Deno.readDirSync(`${folder}/profile_traces.1`)].length, 3);
});

Deno.test("a second run in the folder of one that goes on is refused before it starts anything", async () => {
  await using tiny = await tinyRun();
  using _first = RunFolder.open(`${tiny.folder}/out`, console.log);
  const outcome = await command(...tiny.config);
  assertRefused(
    outcome,
    `Another run writes into the dump folder ${tiny.folder}/out: process ${Deno.pid}`,
    "/out/NAME",
  );
  assertEquals(outcome.out, "");
  assertRefused(await command(...tiny.config, "--nproc", "2"), "Another run writes into the dump folder");
  assertEquals((await command(...tiny.config, "--metrics.jsonl_file=", "--training.steps=1")).code, 0); // writes nothing
});

Deno.test("a console that is a file on a full disk ends no run", {
  ignore: Deno.build.os !== "linux",
}, async () => {
  await using tiny = await tinyRun();
  const { tasks } = JSON.parse(Deno.readTextFileSync(`${root}/deno.json`));
  const [, ...run] = (tasks.train.command as string).split(" ");
  const args = ["-c", '"$0" "$@" >/dev/full', Deno.execPath(), ...run, ...tiny.config];
  const { code, stderr } = await new Deno.Command("sh", { args, cwd: root, env: { NO_COLOR: "1" } }).output();
  const error = new TextDecoder().decode(stderr);
  assertEquals(
    [code, error.match(/^warning: Cannot print: No space left .*; the run goes on$/gm)?.length],
    [0, 1],
    error,
  );
  assertEquals(reportsIn(`${tiny.folder}/out/metrics.jsonl`).at(-1)!.step, 3);
});

Deno.test("event files for TensorBoard have all numbers of metrics.jsonl under their tags, also of a run that goes on", async () => {
  await using tiny = await tinyRun();
  const args = [
    ...tiny.config,
    "--metrics.enable_tensorboard",
    "--metrics.save_tb_folder=events",
    "--checkpoint.enable",
  ];
  args.push(
    "--validation.enable",
    "--validation.local_batch_size=2",
    "--validation.seq_len=16",
    "--validation.steps=1",
  );
  args.push("--checkpoint.no_last_save_model_only", "--training.steps");
  for (const steps of ["3", "5"]) assertEquals((await command(...args, steps)).errors, []);
  const [{ name }, ...others] = Deno.readDirSync(`${tiny.folder}/out/events`);
  assertMatch(name, /^\d{8}-\d{4}$/);
  assertEquals(others, []);
  const events = readFolder(`${tiny.folder}/out/events/${name}`);
  assertEquals(events.filter(({ isStart }) => isStart).map(({ step }) => step), [1, 4]);
  const expected = reportsIn(`${tiny.folder}/out/metrics.jsonl`).map(({ step, ...values }) => ({
    step,
    values: Object.fromEntries(Object.entries(values).map(([tag, value]) => [tag, Math.fround(value)])),
  }));
  assertEquals(expected.length, 8); // five steps and three validations
  assertEquals(events.filter(({ values }) => values).map(({ step, values }) => ({ step, values })), expected);
});

Deno.test("a run writes its configuration as TOML or JSON, and keeps that of an earlier run unless it is the same", async () => {
  await using tiny = await tinyRun();
  const folder = `${tiny.folder}/out`, names = () => [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
  const args = [...tiny.config, "--metrics.jsonl_file=", "--training.steps=1", "--job.save_config_file"];
  const run = async (...more: string[]) => assertEquals((await command(...args, ...more)).errors, []);
  for (let again = 0; again < 2; again++) await run("saved.toml");
  assertEquals(names(), ["saved.toml"]);
  const { out } = await command(...args, "saved.toml", "--print-config");
  assertEquals(await Deno.readTextFile(`${folder}/saved.toml`), `${out}\n`);
  await run("saved.toml", "--debug.seed=7");
  await run("as/torchtitan.json", "--debug.seed=7");
  assertEquals(names(), ["as", "saved.1.toml", "saved.toml"]);
  assertStringIncludes(await Deno.readTextFile(`${folder}/saved.toml`), "\nseed = 7\n");
  assertStringIncludes(await Deno.readTextFile(`${folder}/saved.1.toml`), "\nseed = 0\n");
  assertEquals(JSON.parse(await Deno.readTextFile(`${folder}/as/torchtitan.json`)).debug.seed, 7);
  assertRefused(await command(...args, "config.yaml"), "job.save_config_file", "ends in .toml or .json");
});

Deno.test("event files that cannot be written are named before the first step", async () => {
  await using tiny = await tinyRun();
  await Deno.mkdir(`${tiny.folder}/out`);
  await Deno.writeTextFile(`${tiny.folder}/out/tb`, "");
  const outcome = await command(...tiny.config, "--metrics.enable_tensorboard");
  assertRefused(outcome, `Cannot write ${tiny.folder}/out/tb: `, "leave metrics.enable_tensorboard out");
  assert(!outcome.out.includes("step:"), outcome.out);
});

Deno.test("no JSON lines are written where none are wanted", async () => {
  await using tiny = await tinyRun();
  assertEquals((await command(...tiny.config, "--metrics.jsonl_file", "", "--training.steps", "1")).code, 0);
  assertEquals([...Deno.readDirSync(tiny.folder)].map(({ name }) => name), ["tiny.toml"]);
});

Deno.test("validation comes at the first step, every so many steps, and at the end", async () => {
  await using tiny = await tinyRun();
  const asked = { enable: [], local_batch_size: "2", seq_len: "16", freq: "2", steps: "1" };
  const keys = Object.entries(asked).flatMap(([key, value]) => [`--validation.${key}`, ...[value].flat()]);
  const { code, out } = await command(...tiny.config, ...keys, "--training.steps", "5");
  assertEquals(code, 0);
  assertEquals([...out.matchAll(/^validate step: +(\d) {2}loss:/gm)].map((m) => m[1]), ["1", "2", "4", "5"]);
  assertMatch(
    out,
    /\n {2}32 held-out tokens: loss \d\.\d{4}, their unigram entropy \d\.\d{4}: \d\.\d{4} nats (above|below) it/,
  );
});

Deno.test("a profile leaves a table of kernels and a trace file at the end of each cycle", async () => {
  await using tiny = await tinyRun();
  const keys = { enable_profiling: [], profile_freq: "2", profiler_warmup: "1", save_traces_folder: "traces" };
  const flags = Object.entries(keys).flatMap(([key, value]) => [`--profiling.${key}`, ...[value].flat()]);
  const { code, out } = await command(...tiny.config, ...flags, "--training.steps", "5");
  assertEquals(code, 0);
  assertEquals([...out.matchAll(/^Profile of step (\d): \d+\.\d+ ms a step \(forward /gm)].map((m) => m[1]), [
    "2",
    "4",
  ]);
  assertMatch(out, /\n {2}gemm +output' +\d+ .* \d+% (product|memory)\n/);
  const traces = `${tiny.folder}/out/traces`;
  assertEquals([...Deno.readDirSync(traces)].map(({ name }) => name).sort(), ["iteration_2", "iteration_4"]);
  const { traceEvents } = JSON.parse(await Deno.readTextFile(`${traces}/iteration_4/rank0_trace.json`));
  assert(traceEvents.some(({ name, cat }: Record<string, string>) => name === "adamw" && cat === "update"));
});

Deno.test("a folder of traces that cannot be written is named before the first step", async () => {
  await using tiny = await tinyRun();
  await Deno.writeTextFile(`${tiny.folder}/out`, "");
  const outcome = await command(...tiny.config, "--metrics.jsonl_file", "", "--profiling.enable_profiling");
  assertRefused(outcome, `Cannot write into the dump folder ${tiny.folder}/out: `);
  await Deno.remove(`${tiny.folder}/out`);
  await Deno.mkdir(`${tiny.folder}/out`);
  await Deno.symlink("nowhere/traces", `${tiny.folder}/out/profile_traces`);
  assertRefused(
    await command(...tiny.config, "--metrics.jsonl_file", "", "--profiling.enable_profiling"),
    `Cannot write ${tiny.folder}/out/profile_traces`,
    "leave profiling.enable_profiling out",
  );
});

Deno.test("a dump folder that cannot be written is named before the first step", async () => {
  await using tiny = await tinyRun();
  const outcome = await command(...tiny.config, "--job.dump_folder", `${tiny.config[1]}/sub`);
  assertRefused(outcome, `Cannot write into the dump folder ${tiny.config[1]}/sub: `);
});

Deno.test("a dataset folder that is missing is named", async () => {
  await using tiny = await tinyRun();
  const outcome = await command(...tiny.config, "--training.dataset_path", `${tiny.folder}/nothing`);
  assertRefused(outcome, `Cannot open dataset: there is no ${tiny.folder}/nothing`);
});

/** Runs on one shard that is made of these bytes, until its end is reached. */
async function onShard(bytes: Uint8Array): Promise<Outcome> {
  await using tiny = await tinyRun();
  await Deno.writeFile(`${tiny.folder}/${shardName("train", 0, 1)}`, bytes);
  const keys = { "training.dataset_path": tiny.folder, "data.lanes": "1", "training.steps": "1000" };
  return await command(...tiny.config, ...Object.entries(keys).flatMap(([key, value]) => [`--${key}`, value]));
}

Deno.test("a shard that is cut off is named", async () => {
  const whole = gzipSync(c4Lines(someTexts(50)));
  assertRefused(
    await onShard(whole.subarray(0, whole.length / 2)),
    "c4-train.00000-of-00001.json.gz is cut off after line",
  );
});

Deno.test("a line that is not JSON is named", async () => {
  const shard = gzipSync(c4Lines(someTexts(2)) + "{broken\n");
  assertRefused(await onShard(shard), "line 3 (byte 305) of", "c4-train.00000-of-00001.json.gz");
});

Deno.test("a corpus shorter than one sequence is refused", async () => {
  assertRefused(await onShard(gzipSync(c4Lines(["one two"]))), "Lane 0 of 1 has 4 tokens", "at least 17 tokens");
});

Deno.test("a run that diverges names the step and the first op", async () => {
  await using tiny = await tinyRun();
  const { code, errors, out } = await command(...tiny.config, "--optimizer.lr", "1e30");
  assertEquals([code, errors.length], [1, 1]);
  assertMatch(
    errors[0],
    /^error: Step \d diverged: loss .*, first made by "\w+" of .+\n {2}expected: .*\n {2}fix: lower/,
  );
  assertStringIncludes(out, "step:  1");
});

Deno.test("a library that is missing is named with the fix", async () => {
  const { code, out, error } = await ended(spawn(["--metrics.jsonl_file", ""], "/nowhere/libtitan.so"));
  assertEquals([code, out], [1, ""]);
  assertMatch(
    error,
    /^error: Cannot open the native library libtitan\n {2}- TITAN_LIB, \/nowhere\/libtitan.so: (?!Requires)/,
  );
  assertStringIncludes(error, "fix: run `deno task build` in a checkout");
});

Deno.test("a library of another version is refused with both versions", async () => {
  await using folder = await temporaryFolder();
  const [source, file] = [`${folder.path}/old.cpp`, `${folder.path}/libtitan.so`];
  await Deno.writeTextFile(source, 'extern "C" unsigned titan_abi_version() { return 77; }\n');
  assertEquals((await new Deno.Command("g++", { args: ["-shared", "-fPIC", "-o", file, source] }).output()).code, 0);
  const outcome = await ended(spawn(["--metrics.jsonl_file", ""], file));
  assertEquals([outcome.code, outcome.out], [1, ""]);
  assertMatch(
    outcome.error,
    /^error: Cannot open .*\n.*of another version: its ABI version is 77, this package's is \d/,
  );
});

Deno.test("a run that is stopped is saved, and the same command goes on from there, with its numbers in one file", async () => {
  await using tiny = await tinyRun();
  const args = [...tiny.config, "--checkpoint.enable", "--checkpoint.interval", "1000", "--training.steps"];
  const process = spawn([...args, "100000"]);
  let out = "";
  for await (const text of process.stdout.pipeThrough(new TextDecoderStream())) {
    const hadStep = out.includes("step:");
    out += text;
    if (!hadStep && out.includes("step:")) process.kill("SIGINT");
  }
  assertEquals((await process.status).code, 130, await new Response(process.stderr).text());
  const step = Number(/stopped by SIGINT after step (\d+)/.exec(out)?.[1]),
    path = `${tiny.folder}/out/checkpoint/step-${step}`;
  assertEquals(out.trimEnd().split("\n").at(-1), `saved in ${path}: the same command goes on from there`);
  const again = await command(...args, `${step + 2}`);
  assertEquals(again.code, 0);
  assertMatch(again.out, new RegExp(`\n  from    ${path}: step ${step.toLocaleString("en-US")}, `));
  assertMatch(again.out, /\n {2}changed training\.steps \d+, was 100000\n/);
  assertMatch(again.out, new RegExp(`\nstep: +${step + 1} `));
  assertMatch(again.out, new RegExp(`\nthe weights are in .*/step-${step + 2}$`));
  const lines = Deno.readTextFileSync(`${tiny.folder}/out/metrics.jsonl`).trimEnd().split("\n").map((l) =>
    JSON.parse(l)
  );
  assertEquals(lines.filter((line) => line.run).length, 2);
  assertEquals(lines.filter(({ end }) => end).map(({ end }) => end), [{ step, stopped: "SIGINT" }, { step: step + 2 }]);
  assertEquals(lines.at(-2).step, step + 2);
  const ended = await command(...args, `${step + 2}`);
  assertStringIncludes(ended.out, "passed over:"); // it goes on from the save before the last, of parameters alone
  assertRefused(
    await command(...args, "9", "--checkpoint.load_step", "7777"),
    "step-7777 is no checkpoint",
    "(checkpoint)",
  );
});

Deno.test("initial parameters are saved as step 0, and runs that begin with them are the run that draws them", async () => {
  await using tiny = await tinyRun();
  const args = [...tiny.config, "--checkpoint.enable", "--training.steps", "2"];
  const seed = await command(...args, "--checkpoint.create_seed_checkpoint");
  assertMatch(seed.out, /\nsaved .*\/checkpoint\/step-0: parameters alone, [^\n]*$/);
  assertRefused(
    await command(...args, "--checkpoint.create_seed_checkpoint"),
    "Cannot save the initial parameters",
    "checkpoint.folder",
  );
  const losses = (out: string) => [...out.matchAll(/loss: +([\d.]+)/g)].map(([, loss]) => loss);
  const begun = await command(...args), drawn = await command(...tiny.config, "--training.steps", "2");
  assertMatch(begun.out, /\n {2}from .*step-0: step 0; taken from it: model\n/);
  assertEquals([losses(begun.out), losses(begun.out).length], [losses(drawn.out), 2]);
});

for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
  Deno.test(`${signal} ends a run after its step with exit code ${code}, and the next one starts at once`, async () => {
    await using tiny = await tinyRun();
    const process = spawn([...tiny.config, "--training.steps", "100000"]);
    let out = "";
    for await (const text of process.stdout.pipeThrough(new TextDecoderStream())) {
      const hadStep = out.includes("step:");
      out += text;
      if (!hadStep && out.includes("step:")) process.kill(signal);
    }
    assertEquals((await process.status).code, code, await new Response(process.stderr).text());
    assertStringIncludes(out, `${signal}: stopping after this step; once more to stop at once\n`);
    const [last, weights] = out.trimEnd().split("\n").slice(-2), step = Number(/after step (\d+)/.exec(last)?.[1]);
    assertEquals(last, `stopped by ${signal} after step ${step} of 100000`);
    assertEquals(
      weights,
      "weights are not kept: --checkpoint.enable saves them, and a run that is stopped goes on where it was",
    );
    const reported = out.match(/^step: +(\d+)/gm)!.at(-1);
    assertEquals(Number(reported!.slice(5)), step);
    const again = await ended(spawn([...tiny.config, "--training.steps", "1"]));
    assertEquals(again.code, 0, again.error);
  });
}

Deno.test("a run writes texts between its steps, which changes none of its numbers", async () => {
  await using tiny = await tinyRun();
  const losses = (out: string) => [...out.matchAll(/loss: +([\d.]+) .*grad_norm: +([\d.]+)/g)].map((m) => m.slice(1));
  const plain = await command(...tiny.config);
  const prompt = ["--metrics.sample_prompt", "We the people", "--metrics.sample_tokens", "4"];
  const { code, out, errors } = await command(...tiny.config, "--metrics.sample_freq", "2", ...prompt);
  assertEquals([code, errors], [0, []]);
  assertEquals([losses(out), losses(out).length], [losses(plain.out), 3]);
  const samples = [...out.matchAll(/^sample step: +(\d+) {2}"We the people.*"$/gm)].map((m) => m[1]);
  assertEquals(samples, ["2", "3"]);
});
