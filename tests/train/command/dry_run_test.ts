import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { assertRefused, command, ended, spawn, tinyRun } from "./command_line.ts";

Deno.test("a dry run prints the plan of the default run, and needs no library", async () => {
  const { code, out, error } = await ended(spawn(["--dry-run"], "/nowhere/libtitan.so"));
  assertEquals([code, error], [0, ""]);
  assertStringIncludes(out, "6,163,712 parameters, 2,048 tokens per step, 38.6 MFLOP per token");
  assertMatch(
    out,
    /\nCheckpoint \(.*--disk-speed.*\)\n {2}all that.* 70\.5 MiB in 4 files\n {2}.* 23\.5 MiB in 3 files\n/,
  );
  for (const section of ["initialize", "microbatch", "update", "evaluate", "evaluate_result"]) {
    assertMatch(out, new RegExp(`\\n  ${section} +[\\d,]+ instructions, +[\\d.]+ GFLOP\\n`));
  }
  for (const category of ["parameters", "gradient sums", "moments", "kept for backward", "transient", "arena"]) {
    assertMatch(out, new RegExp(`\\n  ${category}[^\\n]* [\\d.]+ MiB`));
  }
});

Deno.test("a dry run prints what memory budgets cost, with a budget or when asked to, and refuses what cannot be", async () => {
  const sizes = ["--model.n_layers", "2", "--training.seq_len", "128", "--validation.no_enable"];
  const { out: plain } = await command("--dry-run", ...sizes);
  assertMatch(plain, /\nBackward\n {2}recomputes less than 0\.1 % of FLOPs\n/);
  assert(!plain.includes("Memory budgets"));
  const lines = /\nMemory budgets: .*\n( {2,}[\d,]+ B +[\d.]+ GFLOP +[\d.]+ %\n){8}/;
  const { out: asked } = await command("--dry-run", "--activation_checkpoint.visualize_memory_budget_pareto", ...sizes);
  assertMatch(asked, lines);
  const budget = ["--activation_checkpoint.mode", "memory_budget", "--activation_checkpoint.memory_budget"];
  const { out: within } = await command("--dry-run", ...budget, "0.5", ...sizes);
  assertMatch(within, lines);
  assertMatch(within, /\nBackward\n {2}recomputes [1-9][\d.]+ % of FLOPs\n/);
  assertRefused(
    await command("--dry-run", ...budget, "1MiB", ...sizes),
    "a memory budget of 1,048,576 B",
    "(memory_budget)",
  );
});

/** Keys of a model of some 70 billion parameters in one layer, quick to plan and too large for a machine of less than 1 TiB. */
const huge = { dim: 65536, n_layers: 1, n_heads: 64, ffn_hidden_dim: 262144 };
const hugeKeys = Object.entries(huge).flatMap(([key, value]) => [`--model.${key}`, `${value}`]);

Deno.test("a dry run of what does not fit says so, and what to change", async () => {
  const { code, out } = await command("--dry-run", ...hugeKeys);
  assertEquals(code, 0);
  assertMatch(out, /\nMachine\n {2}a run needs 1\.\d TiB, .* are available: it does not fit\n/);
  assertMatch(
    out,
    /\n {2}parallelism\.data_parallel_shard_degree \d+ on \d+ ranks with this memory each needs [\d.]+ GiB/,
  );
  assertMatch(out, /\n {2}a model of at most [\d,]+ million parameters instead of 68,988 million \(model\.flavor/);
  const batch = await command("--dry-run", "--training.local_batch_size", "65536");
  assertMatch(batch.out, /arena +7\d\d\.\d GiB = /);
  assertMatch(batch.out, /\n {2}training\.local_batch_size \d+ instead of 65536 \(training\.global_batch_size 65536/);
  const small = await command("--dry-run", "--model.n_layers", "1");
  assertMatch(small.out, /\nMachine\n {2}a run needs [\d.]+ MiB, .* are available: it fits$/);
});

Deno.test("a dry run plans a mesh, writes its files, and needs no library; a run with too few ranks is refused", async () => {
  await using tiny = await tinyRun();
  const mesh = [...tiny.config, "--mesh", "dp_shard=-1,tp=2"], [json, page] = ["plan.json", "plan.html"];
  const files = ["--plan-json", `${tiny.folder}/${json}`, "--plan-page", `${tiny.folder}/${page}`];
  const { code, out, error } = await ended(
    spawn(["--dry-run", "--disk-speed", "1MB/s", ...mesh, "--nproc", "4", ...files], "/nowhere/libtitan.so"),
  );
  assertEquals([code, error], [0, ""]);
  assertStringIncludes(out, "dp_shard 2 x tp 2 = 4 ranks");
  assertMatch(out, /\nCheckpoint \(.*; at 976\.6 KiB\/s.*\)\n.* by each rank, [\d.]+ s at least\n/);
  assertEquals(JSON.parse(await Deno.readTextFile(`${tiny.folder}/${json}`)).step.globalBatchSize, 4);
  assertStringIncludes(await Deno.readTextFile(`${tiny.folder}/${page}`), "tok_<wbr>embeddings.<wbr>weight");
  assertRefused(await command(...mesh), "but there are 1", "parallelism.tensor_parallel_degree = 2", "start 2 ranks");
  assertRefused(await command("--dry-run", ...tiny.config, "--mesh", "tp=4"), "2 parts that belong together", "(mesh)");
  const nowhere = ["--plan-page", `${tiny.folder}/nowhere/plan.html`];
  assertRefused(await command("--dry-run", ...mesh, ...nowhere), "Cannot write", "nowhere/plan.html");
});

Deno.test("a dry run ends with 1 where a rank does not fit into the device that it is asked about, and says what would", async () => {
  const sizes = ["--dry-run", "--model.n_layers=1", "--device-memory"];
  for (const mesh of [[], ["--mesh", "dp_shard=2"]]) {
    const [large, small] = [await command(...sizes, "80GB", ...mesh), await command(...sizes, "4MiB", ...mesh)];
    assertEquals([large.code, small.code, small.errors], [0, 1, []]);
    assertMatch(large.out, /\nDevice\n {2}fits: a rank needs [\d.]+ MiB of a device's 74\.5 GiB, which leaves /);
    assertMatch(
      small.out,
      /\nDevice\n {2}does not fit: a rank needs [\d.]+ MiB of a device's 4\.0 MiB, [\d.]+ MiB too/,
    );
    assert(!large.out.includes("\nMachine\n"));
  }
  const { out } = await command(...sizes, "40MiB", "--training.local_batch_size=64");
  assertMatch(out, /\nDevice\n {2}does not fit: .*\n {2}training\.local_batch_size \d+ instead of 64 .*needs /);
});

Deno.test("a dry run estimates how long a step and all tokens take on a device of given speeds, and what would fit on a mesh", async () => {
  const speeds = ["--device-tflops=0.5", "--device-bandwidth=10GB/s", "--link=8Gb/s", "--tokens=2M"];
  const sizes = ["--dry-run", "--model.n_layers=1", ...speeds, "--training.seq_len=128", "--validation.no_enable"];
  const one = await command(...sizes);
  assertMatch(one.out, /\nTime \(estimated at 500 GFLOP\/s, 10 GB\/s of memory, links of 1 GB\/s\)\n/);
  assertMatch(one.out, /\n {2}2,000,000 tokens in 1,954 steps +[\d.]+ \w+\n/);
  const two = await command(...sizes, "--mesh=dp_shard=2", "--device-memory=10MiB");
  assertMatch(two.out, /\n {2}exchanges over dp_shard +[\d.]+ ms\n/);
  assertMatch(two.out, /\n {2}2,000,000 tokens in 977 steps +[\d.]+ \w+ to [\d.]+ \w+\n/);
  assertMatch(two.out, /\nTo fit\n {2}.*parallelism\.data_parallel_shard_degree [1-9]\d* .*needs [\d.]+ MiB\n/);
});

Deno.test("a dry run plans for a GPU that is not here: its memory, its speed in the type of products, and bf16 where nothing is said", async () => {
  const sizes = ["--dry-run", "--device=h100", "--model.n_layers=1", "--training.seq_len=128"];
  const [own, f32] = [await command(...sizes), await command(...sizes, "--training.mixed_precision_param=float32")];
  assertEquals([own.code, own.errors], [0, []]);
  assertMatch(own.out, /^Numbers\n {2}products of bf16 with f32 sums, parameters/m);
  assertMatch(own.out, /\nTime \(estimated at 989 TFLOP\/s, 3\.35 TB\/s of memory\)\n/);
  const beside = "beside 648\\.0 MiB for CUDA's context and libraries, [\\d.]+ MiB for graphs of kernels";
  assertMatch(
    own.out,
    new RegExp(
      `\nDevice\n {2}fits: a rank needs [\\d.]+ MiB of a device's 74\\.5 GiB, which leaves 7\\d\\.\\d GiB ${beside}$`,
      "m",
    ),
  );
  assertMatch(f32.out, /\nTime \(estimated at 67 TFLOP\/s, /);
  const mesh = await command(...sizes, "--mesh=dp_shard=2");
  assertMatch(
    mesh.out,
    new RegExp(`\nDevice\n {2}fits: .*${beside}, [\\d.]+ MiB for NCCL's buffers for 1 group of ranks$`, "m"),
  );
  // The arena alone would fit.
  for (const [memory, ...shape] of [["690MiB"], ["1260MiB", "--mesh=dp_shard=2"]]) {
    const small = await command(...sizes, `--device-memory=${memory}`, ...shape);
    assertEquals([small.code, small.errors], [1, []]);
    assertMatch(small.out, /\n {2}(training|parallelism|a model).* needs [\d.]+ [MG]iB/);
    const none = await command(...sizes, "--device-memory=650MiB", ...shape);
    assertMatch(
      none.out,
      /MiB too much beside 648.*\n(.*\n)* {2}a device with more memory: nothing is left for an arena/,
    );
  }
});

Deno.test("a run that does not fit into memory is refused with its plan", async () => {
  await using tiny = await tinyRun();
  const outcome = await command(...tiny.config, ...hugeKeys);
  assertRefused(outcome, "Cannot start: a run needs 1.", "moments", "Largest values of", "(out_of_memory)");
  assertMatch(outcome.errors[0], /\n {2}fix: .*parallelism\.data_parallel_shard_degree \d+ on \d+ ranks/);
  assertEquals([...Deno.readDirSync(tiny.folder)].map(({ name }) => name), ["tiny.toml"]);
});
