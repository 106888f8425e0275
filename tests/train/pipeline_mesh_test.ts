/** Training in stages by real processes: a matrix of schedules and meshes, each compared with one process that trains the same.
 * @module */
import type { LlamaOptions } from "../../model/llama.ts";
import { namedSchedule } from "../../parallel/pipeline/schedules.ts";
import { writeSchedule } from "../../parallel/pipeline/schedule_csv.ts";
import type { PipelineChoices } from "../../train/pipeline.ts";
import { testRanks } from "../native/mpirun.ts";
import { randomFrom, randomSchedule } from "../parallel/pipeline/random_schedules.ts";
import { assertAsOne, run } from "./mesh_cases.ts";
import type { MeshCase } from "./mesh_rank.ts";

const four: LlamaOptions = { numLayers: 4 }, six: LlamaOptions = { numLayers: 6 };
const tied: LlamaOptions = { ...four, tiedEmbeddings: true };
const by = (schedule: string, more: PipelineChoices = {}) => ({ pipeline: { schedule, ...more } });
const csv = writeSchedule(namedSchedule("ZBVZeroBubble", { ranks: 2, stagesPerRank: 2, microbatches: 4 }));
/** Files of timetables that are made at random: stages lie on two ranks anyhow, and what can be done next is done in any order. */
function randomFiles(count: number): string[] {
  const random = randomFrom(3), files: string[] = [];
  while (files.length < count) {
    const schedule = randomSchedule(random), { rows, rankOf, microbatches } = schedule;
    if (rows.length === 2 && rankOf.length === 4 && microbatches === 4) files.push(writeSchedule(schedule));
  }
  return files;
}
const modules = [["tok_embeddings", "layers.0", "layers.1", "layers.2"], ["layers.3", "norm", "output"]];

/** Every degree that is not named is 1; four microbatches unless another number is. */
const cases: Readonly<Record<string, readonly MeshCase[]>> = {
  "each schedule on two ranks": [
    { mesh: { pp: 2 } },
    { mesh: { pp: 2 }, choices: by("GPipe") },
    { mesh: { pp: 2 }, choices: by("LoopedBFS"), model: four },
    { mesh: { pp: 2 }, choices: by("Interleaved1F1B"), model: four },
    { mesh: { pp: 2 }, choices: by("InterleavedZeroBubble"), model: four },
    { mesh: { pp: 2 }, choices: by("ZBVZeroBubble"), model: four },
    { mesh: { pp: 2 }, choices: by("DualPipeV"), model: four },
    { mesh: { pp: 2 }, choices: by("mine.csv", { csv }), model: four },
    { mesh: { pp: 2 }, choices: by("Auto"), model: four },
  ],
  "each schedule on four ranks": [
    { mesh: { pp: 4 }, model: four },
    { mesh: { pp: 4 }, choices: by("GPipe"), model: four },
    { mesh: { pp: 4 }, choices: by("LoopedBFS"), model: six },
    { mesh: { pp: 4 }, choices: by("Interleaved1F1B"), model: six },
    { mesh: { pp: 4 }, choices: by("InterleavedZeroBubble"), model: six, accumulation: 8 },
    { mesh: { pp: 4 }, choices: by("ZBVZeroBubble"), model: six },
    { mesh: { pp: 4 }, choices: by("DualPipeV"), model: six, accumulation: 8 },
    { mesh: { pp: 4 }, choices: by("Auto"), model: six, accumulation: 8 },
  ],
  "random timetables, read from files": randomFiles(3).map((csv) => ({
    ...{ mesh: { pp: 2 }, choices: by("random.csv", { csv }), model: four },
  })),
  "several runs of a schedule in a step, and few microbatches": [
    { mesh: { pp: 2 }, choices: by("1F1B", { microbatches: 2 }) },
    { mesh: { pp: 2 }, choices: by("ZBVZeroBubble", { microbatches: 3 }), model: four, accumulation: 6 },
    { mesh: { pp: 4 }, choices: by("1F1B"), model: four, accumulation: 1 },
  ],
  "uneven stages, more of them, and those that a list names": [
    { mesh: { pp: 2 }, choices: by("1F1B", { firstLess: 0, lastLess: 2 }), model: four },
    { mesh: { pp: 2 }, choices: by("1F1B", { modules }), model: four },
    { mesh: { pp: 2 }, choices: by("Interleaved1F1B", { layersPerStage: 1 }), model: four, accumulation: 2 },
    { mesh: { pp: 4 }, choices: by("1F1B"), model: { numLayers: 2 } }, // the first has the embedding, the last the head
  ],
  "with copies and shards of data": [
    { mesh: { pp: 2, dp_shard: 2 } },
    { mesh: { pp: 2, dp_replicate: 2 }, choices: by("InterleavedZeroBubble"), model: four },
    { mesh: { pp: 2, dp_shard: 2 }, choices: by("ZBVZeroBubble"), model: four },
    { mesh: { pp: 2, dp_replicate: 2, dp_shard: 2 }, choices: by("Interleaved1F1B"), model: four },
    { mesh: { pp: 4, dp_shard: 2 }, choices: by("GPipe"), model: four },
    { mesh: { pp: 2, dp_shard: 3 }, model: { ffnHiddenDim: 25 } },
  ],
  "with tensors and sequences in parts": [
    { mesh: { pp: 2, tp: 2 } },
    { mesh: { pp: 2, tp: 2 }, choices: { ...by("DualPipeV"), asyncTensorParallel: true }, model: four },
    { mesh: { pp: 2, tp: 2 }, choices: { ...by("1F1B"), sequenceParallel: false, lossParallel: false } },
    { mesh: { pp: 2, cp: 2 }, documents: true },
    { mesh: { pp: 2, cp: 2 }, choices: { ...by("ZBVZeroBubble"), rotateMethod: "alltoall" }, model: four },
    { mesh: { pp: 2, cp: 2, tp: 2 }, choices: by("InterleavedZeroBubble"), model: four },
  ],
  "with all axes": [
    { mesh: { pp: 2, dp_shard: 2, tp: 2 }, choices: by("Interleaved1F1B"), model: four },
    { mesh: { pp: 2, dp_replicate: 2, dp_shard: 2, tp: 2 }, accumulation: 2 },
    { mesh: { pp: 2, dp_shard: 2, cp: 2, tp: 2 }, choices: by("ZBVZeroBubble"), model: four, accumulation: 2 },
  ],
  "activation checkpointing and documents": [
    { mesh: { pp: 2 }, remat: { mode: "full" }, documents: true },
    {
      ...{ mesh: { pp: 2, tp: 2 }, choices: by("ZBVZeroBubble"), model: four },
      remat: { mode: "memory_budget", fraction: 0.4 },
    },
    {
      mesh: { pp: 2, dp_shard: 2 },
      choices: by("ZBVZeroBubble"),
      model: four,
      remat: { mode: "selective", option: "op" },
    },
    { mesh: { pp: 4 }, choices: by("Interleaved1F1B"), model: six, remat: { mode: "selective", option: 2 } },
  ],
  "an output layer that shares the embedding's table with the first stage": [
    { mesh: { pp: 2 }, model: tied },
    { mesh: { pp: 4 }, model: tied },
    { mesh: { pp: 2 }, choices: by("ZBVZeroBubble"), model: tied }, // both on the first rank
    { mesh: { pp: 2, dp_shard: 2 }, model: tied },
    { mesh: { pp: 2, dp_replicate: 2 }, model: tied, choices: by("DualPipeV") },
    { mesh: { pp: 2, tp: 2 }, model: tied },
  ],
};

const withDefaults = (run: MeshCase): MeshCase => ({ accumulation: 4, ...run });

for (const [name, list] of Object.entries(cases)) {
  testRanks(`in f64, ten steps in stages are those of one process: ${name}`, async () => {
    assertAsOne(await run(list.map(withDefaults)), { gradient: 1e-12, loss: 1e-10 });
  });
}

testRanks("in f32, and with products of bf16, they agree as closely as these can", async () => {
  const meshes = [{ pp: 2 }, { pp: 2, tp: 2 }, { pp: 2, dp_shard: 2 }];
  const list = meshes.map((mesh): MeshCase => withDefaults({ mesh, dtype: "f32" }));
  assertAsOne(await run(list), { gradient: 1e-5, loss: 1e-4 });
  assertAsOne(await run(list.map((c) => ({ ...c, precision: { param: "bf16" } }))), { gradient: 0.02, loss: 0.02 });
});

testRanks("stages multiply in float8 as one process does", async () => {
  const model = { ...four, dim: 32, ffnHiddenDim: 48 }, float8 = { gathered: true, precomputed: true };
  const list = [{ pp: 2 }, { pp: 2, dp_shard: 2 }].map((mesh): MeshCase =>
    withDefaults({ mesh, model, float8, dtype: "f32", precision: { param: "bf16" } })
  );
  assertAsOne(await run(list), { gradient: 1e-5, firstLosses: 1e-4, loss: 0.02 });
});
