import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { LayoutError } from "../../graph/layout.ts";
import { Mesh } from "../../parallel/mesh.ts";
import { isTransfer } from "../../parallel/pipeline/rank_actions.ts";
import { namedSchedule, SCHEDULES } from "../../parallel/pipeline/schedules.ts";
import { writeSchedule } from "../../parallel/pipeline/schedule_csv.ts";
import { simulate } from "../../parallel/pipeline/timetable.ts";
import type { Schedule } from "../../parallel/pipeline/actions.ts";
import {
  generationActions,
  microbatchActions,
  type PipelineChoices,
  pipelineOf,
  sectionRuns,
  stageTimes,
} from "../../train/pipeline.ts";
import { traceMicrobatch } from "../../train/step.ts";
import { tinyLlama } from "../model/tiny.ts";

const mesh = new Mesh({ pp: 2, dp_shard: 1 }, 2), model = tinyLlama({ numLayers: 4 });
const pipeline = (choices: PipelineChoices, accumulation = 4, rank = 0) =>
  pipelineOf(model, { mesh, rank, pipeline: choices }, accumulation)!;

Deno.test("a mesh without pp has no pipeline", () => {
  assertEquals(pipelineOf(model, { mesh: new Mesh({ dp_shard: 2 }, 2), rank: 0 }, 4), undefined);
});

Deno.test("a rank has the stages that its schedule gives it", () => {
  assertEquals([0, 1].map((rank) => pipeline({}, 4, rank).own), [[0], [1]]);
  assertEquals([0, 1].map((rank) => pipeline({ schedule: "interleaved1f1b" }, 4, rank).own), [[0, 2], [1, 3]]);
  assertEquals([0, 1].map((rank) => pipeline({ schedule: "ZBVZeroBubble" }, 4, rank).own), [[0, 3], [1, 2]]);
});

Deno.test("a step runs the schedule as often as its microbatches need, and begins and ends its sums once", () => {
  const own = pipeline({ microbatches: 2 }, 6), actions = microbatchActions(own, 6);
  assertEquals([own.runs, own.schedule.microbatches], [3, 2]);
  const backward = actions.filter((a) => a.section === "backward of microbatch.0");
  assertEquals(backward.map((a) => a.microbatch), [0, 1, 2, 3, 4, 5]);
  assertEquals(backward.map((a) => [a.first, a.last]), [
    [true, false],
    ...Array.from({ length: 4 }, () => [false, false]),
    [false, true],
  ]);
  assertEquals(sectionRuns(own, 6).get("forward of microbatch.0"), 6);
  assertEquals(sectionRuns(undefined, 6), new Map([["update", 1], ["microbatch", 6]]));
});

Deno.test("what is read of a text goes forward through all stages, in slots of their own, and its result to all ranks", () => {
  const sections = (rank: number) =>
    generationActions(pipeline({ schedule: "ZBVZeroBubble" }, 4, rank), "decode")
      .map(({ section, slot, source }) => `${section} ${slot}${source === undefined ? "" : ` from ${source}`}`);
  assertEquals(sections(0), [
    "forward of decode.0 0",
    "send activation of decode.0 0",
    "receive activation of decode.3 1",
    "forward of decode.3 1",
    "result of decode 1",
  ]);
  assertEquals(sections(1), [
    "receive activation of decode.1 0",
    "forward of decode.1 0",
    "pass activation of decode.2 1 from 0",
    "forward of decode.2 1",
    "send activation of decode.2 1",
    "result of decode 0",
  ]);
  assertEquals(generationActions(undefined, "decode").map((run) => run.section), ["decode"]);
});

Deno.test("a schedule runs as it is written: gradients of weights may wait, and those of inputs are sent without them", () => {
  for (const { name, stagesPerRank } of SCHEDULES) {
    const sizes = { ranks: 2, stagesPerRank: stagesPerRank === "one" ? 1 : 2, microbatches: 8 };
    assertEquals(pipeline({ schedule: name }, 8).schedule, namedSchedule(name, sizes));
  }
  const { train: { actions } } = pipeline({ schedule: "ZBVZeroBubble" }, 8, 1);
  const input = actions.findIndex((a) => "section" in a && a.section === "backward_input" && a.stage === 1);
  const gradient = actions.findIndex((a) => isTransfer(a) && a.way === "send" && a.message.from === 1);
  const weight = actions.findIndex((a) => "section" in a && a.section === "backward_weight" && a.stage === 1);
  assert(input < gradient && gradient < weight, `${[input, gradient, weight]}`);
});

Deno.test("a file of a schedule does what the named one does, and may lie on ranks anyhow", () => {
  const named = namedSchedule("InterleavedZeroBubble", { ranks: 2, stagesPerRank: 2, microbatches: 4 });
  const [read, known] = [{ csv: writeSchedule(named), schedule: "mine.csv" }, { schedule: named.name }].map((c) =>
    pipeline(c)
  );
  assertEquals([read.train, read.own], [known.train, known.own]);
  const v = pipeline({ csv: "0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0\n" }, 1);
  assertEquals(v.schedule.rankOf, [0, 1, 1, 0]);
  assertEquals(v.train.actions.filter(isTransfer).map((a) => a.way), ["send", "receive", "send", "receive"]);
});

Deno.test("Auto idles no more than the best named schedule, and knows which stages take longer", () => {
  const auto = pipeline({ schedule: "Auto" }, 8),
    idle = ({ schedule }: { schedule: Schedule }) => simulate(schedule).bubble;
  const named = ["Interleaved1F1B", "InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV"];
  for (const schedule of named) assert(idle(auto) <= idle(pipeline({ schedule }, 8)) + 1e-12, schedule);
  assertEquals([auto.schedule.name, auto.stages.count], ["Auto", 4]);
  // Four blocks and what counts as two are one stage each on six ranks.
  const six = pipelineOf(
    model,
    { mesh: new Mesh({ pp: 6, dp_shard: 1 }, 6), rank: 0, pipeline: { schedule: "auto" } },
    4,
  )!;
  assertEquals(six.stages.count, 6);
  const graph = traceMicrobatch(model, { batch: 1, seqLen: 8, dtype: "f32", globalTokens: 8, stages: auto.stages });
  const times = stageTimes(graph, 4);
  assertEquals(times.map(({ forward, input, weight }) => forward > 0 && input === weight), [true, true, true, true]);
  assert(times[1].forward > times[0].forward, "two blocks take longer than one with the embedding");
});

Deno.test("what does not fit is refused, and says which key to change", () => {
  const refused = (choices: PipelineChoices, accumulation = 4) =>
    assertThrows(() => pipeline(choices, accumulation), LayoutError).message;
  assertStringIncludes(refused({ schedule: "2F2B" }), `There is no schedule "2F2B"; expected one of GPipe, 1F1B,`);
  assertStringIncludes(refused({ microbatches: 3 }), "A step has 4 microbatches: expected a multiple of 3");
  assertStringIncludes(
    refused({ schedule: "DualPipeV" }, 2),
    "2 microbatches are too few; expected one for each of the 4 stages",
  );
  assertStringIncludes(refused({ layersPerStage: 1 }), "layers_per_stage 1 makes 3 stages on each rank");
  const file = refused({ csv: "0F0,0B0\n1F0\n", schedule: "mine.csv" }, 1);
  assertStringIncludes(file, `"mine.csv"`);
  assertStringIncludes(file, "change parallelism.pipeline_parallel_schedule");
  assertStringIncludes(refused({ csv: "0F0,1F0,1B0,0B0\n" }, 1), "has 1 lines; expected 2");
});
