import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { namedSchedule } from "../../../parallel/pipeline/schedules.ts";
import { writeSchedule } from "../../../parallel/pipeline/schedule_csv.ts";
import { ConfigError, loadConfig, meshError, meshOf, trainOptions } from "../../../train/config/config.ts";
import { type Pipeline, pipelineOf } from "../../../train/pipeline.ts";

/** What a command line trains and validates on, without what is not set. */
async function dataOf(...args: string[]): Promise<unknown[]> {
  const { config } = await loadConfig(["--validation.enable", ...args], () => "");
  const { data, validation } = trainOptions(config);
  return JSON.parse(JSON.stringify([data, validation!.data]));
}

Deno.test("who trains on C4 of the hub validates on it, and who names a path on the held-out sample", async () => {
  const names = async (...args: string[]) => (await dataOf(...args)).map((data) => (data as { name: string }).name);
  assertEquals(await names("--training.dataset", "c4"), ["c4", "c4_validation/en"]);
  assertEquals(await names("--training.dataset", "c4/realnewslike"), ["c4/realnewslike", "c4_validation/realnewslike"]);
  assertEquals(await names("--training.dataset", "c4", "--training.dataset_path", "shards/"), ["c4", "c4_validation"]);
  assertEquals(await names("--training.dataset", "c4", "--validation.dataset_path", "held/"), ["c4", "c4_validation"]);
  assertEquals(await names(), ["c4_test", "c4_validation"]);
});

Deno.test("validation has sequences as long as those that are trained on, unless its own key says another length", async () => {
  const length = async (...args: string[]) => {
    const { config } = await loadConfig(["--validation.enable", ...args], () => "");
    return trainOptions(config).validation!.seqLen;
  };
  assertEquals(await length("--training.seq_len", "128"), 128);
  assertEquals(await length("--training.seq_len", "128", "--validation.seq_len", "64"), 64);
});

Deno.test("the cache of streamed files is where the keys say, of training and validation alike", async () => {
  const args = ["--training.dataset", "c4", "--data.cache_dir", "kept", "--data.cache_size", "5GB"];
  assertEquals(
    (await dataOf(...args)).map((data) => (data as { cache: unknown }).cache),
    Array(2).fill({ folder: "kept", bytes: 5e9 }),
  );
});

/** The pipeline that a command line asks for, with the debug model's six blocks. */
async function pipelineWith(args: string, toml?: string): Promise<Pipeline> {
  const file = toml === undefined ? "" : "--job.config_file mine.toml ", flags = `${file}--dry-run ${args}`.split(" ");
  const { config, nproc } = await loadConfig(flags, () => toml ?? "");
  const mesh = meshOf(config, nproc), { model, parallelism, accumulation = 1 } = trainOptions(config, mesh);
  try {
    return pipelineOf(model, { ...parallelism, mesh, rank: 0 }, accumulation)!;
  } catch (error) {
    throw meshError(error);
  }
}

/** Schedule, microbatches of a step, and blocks of each stage, of torchtitan's flags for pipelines; its prefix is left out. */
async function stagesWith(flags: string, toml?: string): Promise<unknown[]> {
  const args = flags.split(" ").map((flag) => flag.replace(/^--/, "--parallelism.")).join(" ");
  const { schedule, stages, runs } = await pipelineWith(args, toml);
  const blocks = Array.from({ length: 6 }, (_, i) => stages.ofBlock(`layers.${i}`));
  return [schedule.name, runs * schedule.microbatches, schedule.rankOf, blocks.join("")];
}

Deno.test("torchtitan's flags of pipelines mean what they mean there", async () => {
  const two = "--pipeline_parallel_degree 2";
  assertEquals(await stagesWith(two), ["1F1B", 8, [0, 1], "000111"]);
  assertEquals(await stagesWith(`${two} --pipeline_parallel_schedule InterleavedZeroBubble`), [
    ...["InterleavedZeroBubble", 8, [0, 1, 0, 1], "011223"],
  ]);
  assertEquals(await stagesWith(`${two} --pipeline_parallel_schedule ZBVZeroBubble`), [
    ...["ZBVZeroBubble", 8, [0, 1, 1, 0], "011223"],
  ]);
  assertEquals(await stagesWith(`${two} --pipeline_parallel_layers_per_stage 4`), ["1F1B", 8, [0, 1], "000111"]);
  const [less] = ["first", "last"].map((end) => `--pipeline_parallel_${end}_stage_less_layers`);
  assertEquals((await stagesWith(`${two} ${less} 0`))[3], "000011");
  assertEquals((await stagesWith(`${two} --pipeline_parallel_microbatch_size 2`))[1], 4);
});

Deno.test("stages by their modules are a list in TOML, and JSON as a flag", async () => {
  const list =
    '[["tok_embeddings","layers.0"],["layers.1","layers.2","layers.3","layers.4","layers.5","norm","output"]]';
  const expected = ["1F1B", 8, [0, 1], "011111"];
  assertEquals(await stagesWith(`--pipeline_parallel_degree 2 --module_fqns_per_model_part ${list}`), expected);
  const toml = `[parallelism]\nmodule_fqns_per_model_part = ${list}\n`;
  assertEquals(await stagesWith("--pipeline_parallel_degree 2", toml), expected);
});

Deno.test("PipelineScheduleMulti runs the file of a schedule, which is told by its name, and is nothing without one", async () => {
  const file = await Deno.makeTempFile({ suffix: "_mine.csv" });
  await Deno.writeTextFile(
    file,
    writeSchedule(namedSchedule("ZBVZeroBubble", { ranks: 2, stagesPerRank: 2, microbatches: 8 })),
  );
  const multi = "--pipeline_parallel_degree 2 --pipeline_parallel_schedule PipelineScheduleMulti";
  const [name, ...others] = await stagesWith(`${multi} --pipeline_parallel_schedule_csv ${file}`);
  assertEquals([file.endsWith(`/${name}`), ...others], [true, 8, [0, 1, 1, 0], "011223"]);
  await Deno.writeTextFile(file, "0F0,0X0\n1F0,1B0\n");
  const refusal = async (flags: string) => (await assertRejects(() => stagesWith(flags), ConfigError)).message;
  assertStringIncludes(await refusal(`${multi} --pipeline_parallel_schedule_csv ${file}`), '_mine.csv"');
  await Deno.remove(file);
  const without = await refusal(multi);
  assertStringIncludes(without, 'There is no schedule "PipelineScheduleMulti"');
  assertStringIncludes(without, "(or name a file in parallelism.pipeline_parallel_schedule_csv)");
});
