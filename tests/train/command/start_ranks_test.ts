/** Runs of several ranks by the command line, and how they end when something goes wrong.
 * @module */
import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { modulePath } from "../../../ffi/comm.ts";
import { library } from "../../../ffi/library.ts";
import { LaunchError } from "../../../launch/world.ts";
import { numRanks, shownRanks } from "../../../train/command/start_ranks.ts";
import { loadConfig } from "../../../train/config/config.ts";
import { build, run } from "../../csrc/run.ts";
import { someTexts, temporaryFolder, writeShards } from "../../data/fixture.ts";
import { MPI, testRanks } from "../../native/mpirun.ts";
import { readFolder } from "../report/event_reader.ts";
import { reportsIn } from "./command_line.ts";
import { Launcher, statusOf } from "../../launch/launcher.ts";

const root = fromFileUrl(new URL("../../..", import.meta.url)), script = new URL("command_rank.ts", import.meta.url);

Deno.test("the number of ranks is what there are, or else what is asked for", () => {
  assertEquals([numRanks(4, undefined), numRanks(4, 4), numRanks(undefined, 2), numRanks(undefined, undefined)], [
    4,
    4,
    2,
    1,
  ]);
  assertThrows(() => numRanks(4, 2), LaunchError, "--nproc 2, but this is one of 4 ranks");
});

Deno.test("a compiled program is one of the ranks that a launcher starts, and starts none", () => {
  assertEquals([numRanks(2, undefined, true), numRanks(2, 2, true), numRanks(undefined, 1, true)], [2, 2, 1]);
  assertThrows(() => numRanks(undefined, 2, true), LaunchError, "fix: mpirun -n 2 PROGRAM");
});

Deno.test("ranks that there are not cannot be shown", () => {
  assertEquals([shownRanks([0, 3], 4), shownRanks("all", 4), shownRanks(undefined, 4)], [[0, 3], "all", [0]]);
  assertThrows(() => shownRanks([0, 4], 4), LaunchError, "--log-rank 0,4\n  expected: ranks from 0 to 3");
  Deno.env.set("LOG_RANK", "2,1");
  try {
    assertEquals(shownRanks(undefined, 4), [2, 1]);
    assertThrows(() => shownRanks(undefined, 2), LaunchError, 'LOG_RANK is "2,1"');
    Deno.env.set("LOG_RANK", "first");
    assertThrows(() => shownRanks(undefined, 2), LaunchError, 'LOG_RANK is "first"');
  } finally {
    Deno.env.delete("LOG_RANK");
  }
});

Deno.test("with a pipeline the last stage is shown too, wherever its schedule has it", async () => {
  const { config: { parallelism } } = await loadConfig([], () => "");
  const shown = (schedule: string, csv: string | null = null, stages = 4) =>
    shownRanks(undefined, 8, {
      ...parallelism,
      pipeline_parallel_degree: stages,
      pipeline_parallel_schedule: schedule,
      pipeline_parallel_schedule_csv: csv,
    });
  assertEquals([shown("1F1B"), shown("Interleaved1F1B"), shown("zbvzerobubble"), shown("DualPipeV")], [
    [0, 6],
    [0, 6],
    [0],
    [0],
  ]);
  assertEquals([shown("ZBVZeroBubble", "mine.csv"), shown("1F1B", null, 1), shown("1F1B", null, 3)], [[0, 6], [0], [
    0,
  ]]);
});

/** Arguments of a run of a tiny model that writes into a folder. */
const tiny = (folder: string, more: Readonly<Record<string, string | number>> = {}) =>
  Object.entries({
    "job.dump_folder": `${folder}/out`,
    "model.dim": 16,
    "model.n_layers": 1,
    "model.n_heads": 2,
    "model.ffn_hidden_dim": 16,
    "training.local_batch_size": 2,
    "training.seq_len": 16,
    "training.steps": 10_000,
    "validation.no_enable": "",
    "metrics.log_freq": 1,
    "device.threads": 1,
    ...more,
  }).flatMap(([key, value]) => [`--${key}`, ...(value === "" ? [] : [`${value}`])]);

/** The files of a folder, if it is there. */
async function* readTexts(folder: string): AsyncGenerator<string> {
  try {
    for await (const { name } of Deno.readDir(folder)) yield await Deno.readTextFile(`${folder}/${name}`);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Runs three ranks with one at fault; returns how it ended, and what it said first. */
async function withFault(fault: string, env: Record<string, string> = {}, timeoutSeconds = 60) {
  await using folder = await temporaryFolder();
  const args = [
    "--nproc",
    "3",
    "--log-rank",
    "all",
    ...tiny(folder.path, { "comm.train_timeout_seconds": timeoutSeconds }),
  ];
  const job = new Launcher(script, args, { FAULT: fault, TITAN_LIB: library().path, ...env });
  const ended = await job.ended();
  const records = await Array.fromAsync(readTexts(`${folder.path}/out/comm_traces`));
  return { job, ended, first: () => job.err.split("\n")[0], records };
}

testRanks(
  "the command starts ranks with the permissions of its task, and shows those that it is asked for",
  async () => {
    await using folder = await temporaryFolder();
    const { tasks } = JSON.parse(await Deno.readTextFile(`${root}/deno.json`));
    const [, ...run] = (tasks.train.command as string).split(" ");
    const args = [...run, "--nproc", "3", "--log-rank", "0,2"];
    args.push(...tiny(folder.path, { "training.steps": 3, "metrics.sample_freq": 2, "metrics.sample_prompt": "We" }));
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args,
      cwd: root,
      env: { NO_COLOR: "1" },
    }).output();
    const out = new TextDecoder().decode(stdout);
    assertEquals([code, new TextDecoder().decode(stderr)], [0, ""], out);
    assertMatch(out, /^\[rank0\] {3}ranks {3}3 = dp_shard 3, 3 of them on this host, by shared memory \(/m);
    for (const rank of [0, 2]) assertMatch(out, new RegExp(`^\\[rank${rank}\\] step: {2}3 {2}loss: `, "m"));
    assert(!out.includes("[rank1]"), out);
    const losses = (rank: number) =>
      [...out.matchAll(new RegExp(`^\\[rank${rank}\\] step: .*? loss: +(\\S+)`, "gm"))].map((m) => m[1]);
    assertEquals(losses(0).length, 3);
    assertEquals(losses(2), losses(0));
    const texts = (rank: number) =>
      [...out.matchAll(new RegExp(`^\\[rank${rank}\\] sample step: {2}(\\d) {2}("We.*)$`, "gm"))].map(([, ...m]) => m);
    assertEquals(texts(0).map(([step]) => step), ["2", "3"]);
    assertEquals(texts(2), texts(0));
  },
);

testRanks(
  "each rank has event files of its own in one run's folder where all are to have some, else rank 0",
  async () => {
    await using folder = await temporaryFolder();
    const runs = `${folder.path}/out/tb`, keys = { "training.steps": 2, "metrics.enable_tensorboard": "true" };
    for (const all of [false, true]) {
      const args = ["--nproc", "2", ...tiny(folder.path, { ...keys, "metrics.save_for_all_ranks": `${all}` })];
      const job = new Launcher(script, args, { TITAN_LIB: library().path });
      assertEquals((await job.ended()).code, 0, job.err);
    }
    const [one, each] = [...Deno.readDirSync(runs)].map(({ name }) => `${runs}/${name}`).sort();
    assertEquals([...Deno.readDirSync(each)].map(({ name }) => name).sort(), ["rank_0", "rank_1"]);
    const losses = [one, `${each}/rank_0`, `${each}/rank_1`].map((path) =>
      readFolder(path).flatMap(({ step, values }) => values ? [[step, values["loss_metrics/global_avg_loss"]]] : [])
    );
    assertEquals(losses[0].map(([step]) => step), [1, 2]);
    assertEquals([losses[1], losses[2]], [losses[0], losses[0]]);
  },
);

testRanks("ranks validate on fewer documents than a batch of theirs has rows, as one process does", async () => {
  await using folder = await temporaryFolder();
  writeShards(folder.path, [someTexts(3)], "validation");
  const validation = { local_batch_size: 4, seq_len: 8, dataset_path: folder.path };
  const keys = Object.entries(validation).map(([key, value]) => [`validation.${key}`, value]);
  const held = async (ranks: string[], localBatch: number) => {
    const all = { "training.steps": 1, "training.local_batch_size": localBatch, ...Object.fromEntries(keys) };
    const args = [...ranks, ...tiny(folder.path, all), "--validation.enable"];
    const job = new Launcher(script, args), { code } = await job.ended();
    assertEquals([code, job.err], [0, ""], job.out);
    return / ([\d,]+) held-out tokens: loss ([\d.]+), their unigram entropy ([\d.]+)/.exec(job.out)!.slice(1);
  };
  const [tokens, loss, entropy] = await held([], 4), ranks = await held(["--nproc", "2"], 2);
  assert(Number(tokens) >= 32, tokens);
  assertEquals([ranks[0], ranks[2]], [tokens, entropy]);
  assert(Math.abs(Number(ranks[1]) - Number(loss)) < 2e-3, `${ranks[1]} and ${loss}`);
});

/** What a file of Hugging Face's form has. */
async function weightsIn(path: string): Promise<{ header: unknown; values: Float32Array }> {
  const { buffer } = await Deno.readFile(path), end = 8 + Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(buffer.slice(8, end)));
  return { header, values: new Float32Array(buffer.slice(end)) };
}

testRanks(
  "stages of ranks that share sequences and tensors train, validate, write texts and export as one process does",
  async () => {
    await using folder = await temporaryFolder();
    const run = async (name: string, ...ranks: string[]) => {
      const sizes = { "model.n_layers": 2, "training.local_batch_size": 4, "training.steps": 2, "validation.steps": 2 };
      const texts = { "metrics.sample_freq": 1, "metrics.sample_prompt": "We", "metrics.sample_tokens": 8 };
      // In f32 runs differ in their last bits, and any of these may draw another token.
      const keys = tiny(`${folder.path}/${name}`, { ...sizes, ...texts, "training.dtype": "float64" });
      const args = [...ranks, ...keys, "--validation.enable", "--checkpoint.enable"];
      const save = ["--checkpoint.last_save_model_only", "--checkpoint.last_save_in_hf"];
      const job = new Launcher(script, [...args, ...save]), { code } = await job.ended();
      assertEquals([code, job.err], [0, ""], job.out);
      const weights = await weightsIn(`${folder.path}/${name}/out/checkpoint/step-2/model.safetensors`);
      const found = (form: RegExp) => [...job.out.matchAll(form)].map((m) => m[1]);
      return { losses: found(/loss:? +(\d[\d.]*)/g).map(Number), texts: found(/sample step: +(.*)/g), weights };
    };
    const one = await run("one"), all = await run("all", "--nproc", "8", "--mesh", "pp=2,cp=2,tp=2", "--log-rank", "0");
    assertEquals([one.losses.length, all.losses.length], [6, 6]); // two steps, and two validations told twice
    one.losses.forEach((loss, i) => assert(Math.abs(all.losses[i] - loss) < 2e-3, `${all.losses} and ${one.losses}`));
    assertEquals([one.texts.length, new Set(one.texts).size, all.texts], [2, 2, one.texts]);
    assertEquals(all.weights.header, one.weights.header);
    const off = one.weights.values.map((x, i) => Math.abs(x - all.weights.values[i])).reduce((a, b) => Math.max(a, b));
    assert(off < 2e-3, `weights are off by ${off}`);
  },
);

testRanks("ranks train to their end where what they print is lost on a full disk", async () => {
  await using folder = await temporaryFolder();
  const program = [Deno.execPath(), "run", "-A", "--quiet", `${root}/mod.ts`, "--nproc", "2"];
  const { code, stderr } = await new Deno.Command("sh", {
    args: ["-c", '"$0" "$@" >/dev/full', ...program, ...tiny(folder.path, { "training.steps": 3 })],
    env: { ...MPI, NO_COLOR: "1" },
  }).output();
  const error = new TextDecoder().decode(stderr);
  assertEquals([code, error.match(/^warning: Cannot print: .*; the run goes on$/gm)?.length], [0, 1], error);
  assertEquals(reportsIn(`${folder.path}/out/metrics.jsonl`).at(-1)!.step, 3);
});

testRanks("what cannot be is refused once, before any rank starts", async () => {
  await using folder = await temporaryFolder();
  const refused = async (...args: string[]) => {
    const job = new Launcher(script, [...args, ...tiny(folder.path)]), { code } = await job.ended();
    assertEquals([code, job.out], [1, ""]);
    return job.err;
  };
  assertMatch(
    await refused("--nproc", "3", "--mesh", "dp_shard=2,tp=2"),
    /^error: The degrees make 4 ranks, but there are 3\n.*\n {2}fix: .* start 4 ranks \(--nproc 4\) .*\(mesh\)\n$/,
  );
  assertMatch(await refused("--mesh", "dp_shard=2"), /^error: The degrees make 2 ranks, but there are 1\n/);
  assertMatch(
    await refused("--nproc", "2", "--training.seq_length", "4"),
    /^error: training\.seq_length .*\n.*\n.*\n$/,
  );
  assertMatch(
    await refused("--nproc", "2", "--log-rank", "2"),
    /^error: --log-rank 2\n {2}expected: ranks from 0 to 1/,
  );
});

Deno.test("without a module beside the library, over MPI or Gloo, the error says how to build one", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/libtitan.so`;
  await Deno.copyFile(library().path, path);
  const job = new Launcher(script, ["--nproc", "2", ...tiny(folder.path)], { TITAN_LIB: path });
  assertEquals((await job.ended()).code, 1);
  assertStringIncludes(job.err, `error: Cannot start 2 ranks: there is no ${folder.path}/libtitan_gloo.so, and no `);
  assertStringIncludes(job.err, "\n  fix: npx -y deno task setup --gloo, or npx -y deno task setup --mpi   (launch)\n");
});

testRanks("torchtitan's script of this name starts a run, with its flags as they are typed there", async () => {
  await using folder = await temporaryFolder();
  const flags = ["--parallelism.data_parallel_shard_degree=2", "--parallelism.tensor_parallel_degree", "2"];
  const { code, stdout, stderr } = await new Deno.Command(`${root}/run_train.sh`, {
    args: [...tiny(folder.path, { "training.steps": 2 }), ...flags],
    env: { NGPU: "4", CONFIG_FILE: "configs/debug.toml", LOG_RANK: "0,3", NO_COLOR: "1" },
  }).output();
  const out = new TextDecoder().decode(stdout);
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  assertMatch(out, /^\[rank3\] {3}ranks {3}4 = dp_shard 2 x tp 2, 4 of them on this host/m);
  assertMatch(out, /^\[rank0\] step: {2}2 {2}loss: /m);
});

testRanks("processes that mpirun started are ranks, and show what they are asked for themselves", async () => {
  await using folder = await temporaryFolder();
  const program = [Deno.execPath(), "run", "-A", "--quiet", `${root}/mod.ts`, "--mesh", "tp=2", "--log-rank", "1"];
  const { code, stdout, stderr } = await new Deno.Command("mpirun", {
    args: ["-n", "2", ...program, ...tiny(folder.path, { "training.steps": 2 })],
    env: { ...MPI, NO_COLOR: "1" },
  }).output();
  const out = new TextDecoder().decode(stdout);
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  assertMatch(out, /^\[rank1\] step: {2}2 {2}loss: /m);
  assert(!out.includes("[rank0]"), out);
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  testRanks(`${signal} stops all ranks after the same step`, async () => {
    await using folder = await temporaryFolder();
    const job = new Launcher(script, ["--nproc", "3", "--log-rank", "all", ...tiny(folder.path)]);
    await job.until(/step: +3 /);
    job.kill(signal);
    const { code } = await job.ended();
    assertEquals([code, job.err], [signal === "SIGINT" ? 130 : 143, ""], job.out);
    assertStringIncludes(job.out, `[rank0] ${signal}: stopping after this step`);
    const stopped = [...job.out.matchAll(/^\[rank\d\] stopped by .* after step (\d+) of 10000$/gm)].map((m) => m[1]);
    assertEquals(new Set(stopped).size, 1, job.out);
    assertEquals(stopped.length, 3, job.out);
  });
}

testRanks("a rank that is killed in step 5 ends the run, and is named first", async () => {
  await using folder = await temporaryFolder();
  const job = new Launcher(script, ["--nproc", "3", "--log-rank", "all", ...tiny(folder.path)]);
  await job.until(/rank1\] step: +4 /);
  const begun = performance.now();
  Deno.kill((await job.pids(3))[1], "SIGKILL");
  assertEquals((await job.ended()).code, 137);
  assert(performance.now() - begun < 10_000);
  assertEquals(job.err.split("\n")[0], "[rank1] error: this process was killed by signal 9");
});

testRanks("a rank that sleeps for ever ends the run after the time-out, and who waited says for whom", async () => {
  const { job, ended, first, records } = await withFault("asleep", {}, 1);
  assert(ended.code !== 0 && ended.seconds < 20, `${ended.code} after ${ended.seconds} s`);
  assertMatch(first(), /^\[rank[02]\] error: .* did not end within 1\.0 s: rank 1 has not come; rank 1's last: /);
  assertMatch(job.err, /\n\[rank\d\] {3}the last collectives of all ranks: .*\/out\/comm_traces\n/);
  assertMatch(records[0], /^rank 0: \d+ collectives, the last of them:\n[^]*\nrank 1: \d+ collectives/);
  assertMatch(job.err, /\n(The same on rank \d|\[rank\d\] then error: .*)\n$/); // the other's, in short
});

testRanks("a rank that fails outside of its steps tells the others, and its own error is first", async () => {
  const { job, ended, first } = await withFault("throws");
  assertEquals(ended.code, 1, job.err);
  assertEquals(first(), "[rank1] error: Error: the disk is full");
  assertMatch(job.err, /^\[rank0\] then error: .* cannot end: rank 1 gave up: the disk is full/m);
});

for (const [where, what] of [["kernel", "adamw"], ["collective", "all_\\w+|reduce_scatter"]]) {
  testRanks(`memory that runs out in a ${where} of one rank ends the run with where it was`, async () => {
    await run("cmake", "--build", build, "--target", "titan_faulty", "--parallel", "2");
    const env = { TITAN_FAULT: where, FAULTY_LIB: `${build}/faulty/libtitan.so`, TITAN_EXCHANGE: "messages" };
    const { job, ended, first } = await withFault(`memory_of_${where}s`, env);
    assertEquals(ended.code, 1, job.err);
    assertMatch(first(), new RegExp(`^\\[rank1\\] error: host memory ran out in (${what})( of \\S+)?$`));
    assertMatch(job.err, /^\[rank0\] then error: .* cannot end: rank 1 gave up: host memory ran out in /m);
  });
}

testRanks("a rank with another configuration is told apart by the key, once", async () => {
  const { job, ended, first } = await withFault("config");
  assert(ended.code !== 0 && ended.seconds < 20, `${ended.code} after ${ended.seconds} s`);
  assertMatch(first(), /^\[rank\d\] error: The ranks of this run were not started alike$/);
  assertMatch(job.err, /\] {3}training\.seq_len: 16 on ranks 0, 2; 32 on rank 1\n/);
  assertEquals(job.err.match(/\] error: /g)?.length, 1, job.err); // others may follow it
});

testRanks("a rank that refuses its configuration ends the run with its own error first", async () => {
  const { job, ended, first } = await withFault("refused");
  assert(ended.code !== 0 && ended.seconds < 20, `${ended.code} after ${ended.seconds} s`);
  assertMatch(first(), /^\[rank1\] error: data\.lanes = 0/);
  assertEquals(job.err.match(/\] error: /g)?.length, 1, job.err); // others may follow it
});

testRanks("a rank with another library is told apart by its version, once", async () => {
  await using folder = await temporaryFolder();
  const bytes = await Deno.readFile(library().path), version = new TextEncoder().encode(`${library().version}\0`);
  const at = bytes.findIndex((_, i) => version.every((byte, j) => bytes[i + j] === byte));
  bytes[at + version.length - 2]++;
  await Deno.writeFile(`${folder.path}/libtitan.so`, bytes, { mode: 0o755 });
  await Deno.copyFile(modulePath(), `${folder.path}/libtitan_mpi.so`);
  const { job, ended, first } = await withFault("library", { OTHER_LIB: `${folder.path}/libtitan.so` });
  assert(ended.code !== 0 && ended.seconds < 20, `${ended.code} after ${ended.seconds} s`);
  assertMatch(first(), /^\[rank\d\] error: The ranks of this run were not started alike$/);
  assertMatch(
    job.err,
    /\] {3}library: "0\.1\.0, ABI version \d+" on ranks 0, 2; "0\.1\.1, ABI version \d+" on rank 1\n/,
  );
  assertEquals(job.err.match(/\] error: /g)?.length, 1, job.err); // others may follow it
});

testRanks("when the launcher of a run is killed, its ranks end", async () => {
  await using folder = await temporaryFolder();
  const job = new Launcher(script, ["--nproc", "3", "--log-rank", "all", ...tiny(folder.path)]);
  await job.until(/step: +3 /);
  job.kill("SIGKILL");
  await job.ended();
});

/** The ancestor of a process that is `mpirun`, by whatever name. */
function mpirunOf(pid: number): number {
  for (let at = pid; at > 1;) {
    const status = statusOf(at);
    if (/^Name:\s+(prterun|mpirun|orterun|mpiexec\S*)$/m.test(status)) return at;
    at = Number(/^PPid:\s+(\d+)$/m.exec(status)![1]);
  }
  throw new Error(`no mpirun above process ${pid}`);
}

testRanks("when mpirun is killed, its ranks end, and no file of theirs or of it is left", async () => {
  await using folder = await temporaryFolder();
  const TMPDIR = `${folder.path}/tmp`;
  const names = async (path: string) =>
    // Deno reads /dev/shm for those alone who may do all
    new TextDecoder().decode((await new Deno.Command("ls", { args: [path], stderr: "null" }).output()).stdout);
  await Deno.mkdir(TMPDIR);
  const job = new Launcher(script, ["--nproc", "3", "--log-rank", "all", ...tiny(folder.path)], { TMPDIR });
  await job.until(/step: +3 /);
  const own = (await names(TMPDIR)).trim(), isOpenMpi = /\(Open MPI/.test(job.out);
  assertEquals(/^sm_segment/m.test(await names(`/dev/shm/${own}`)), isOpenMpi);
  Deno.kill(mpirunOf((await job.pids(3))[0]), "SIGKILL");
  assertEquals((await job.ended()).code === 0, false);
  for (let waited = 0; waited < 5000 && (await names("/dev/shm")).includes(own); waited += 50) {
    await new Promise((resolve) => setTimeout(resolve, 50)); // the shells around ranks end after them
  }
  assertEquals([await names(TMPDIR), (await names("/dev/shm")).includes(own)], ["", false]);
});

testRanks("torchtitan's flags of float8, as they are typed there, train ranks as one process does", async () => {
  await using folder = await temporaryFolder();
  const linear = "--quantize.linear.float8", degree = (axis: string) => [`--parallelism.${axis}_degree`, "2"];
  const flags = ["--model.converters", "quantize.linear.float8", `${linear}.enable_fsdp_float8_all_gather`];
  flags.push(`${linear}.precompute_float8_dynamic_scale_for_fsdp`, `${linear}.emulate`);
  const losses = async (localBatch: number, ...ranks: string[]) => {
    const keys = { "training.local_batch_size": localBatch, "training.steps": 3 };
    const job = new Launcher(script, [...ranks, ...tiny(folder.path, keys), ...flags]), { code } = await job.ended();
    assertEquals([code, job.err], [0, ""], job.out);
    assertMatch(job.out, / float8 {2}8 of 8 linear layers: layers\.\*\.attention\.wq, .*, output$/m);
    assertMatch(job.out, / float8 {2}emulated, .* as long as in bf16$/m);
    return [...job.out.matchAll(/ loss: +(\d[\d.]*)/g)].map(([, loss]) => Number(loss));
  };
  const shards = ["--nproc", "4", ...degree("data_parallel_shard")], one = await losses(4);
  const hsdp = await losses(1, ...shards, ...degree("data_parallel_replicate"));
  const tensors = await losses(
    2,
    ...shards,
    ...degree("tensor_parallel"),
    "--parallelism.enable_async_tensor_parallel",
  );
  for (const some of [hsdp, tensors]) {
    assertEquals(some.length, 3);
    some.forEach((loss, i) => assert(Math.abs(loss - one[i]) < 1e-4, `${some} but ${one}`));
  }
});
