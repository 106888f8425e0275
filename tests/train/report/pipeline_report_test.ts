import { assertEquals } from "@std/assert";
import type { LlamaOptions } from "../../../model/llama.ts";
import { Mesh } from "../../../parallel/mesh.ts";
import type { PipelineChoices } from "../../../train/pipeline.ts";
import { stagesText } from "../../../train/report/pipeline_report.ts";
import { bytesText } from "../../../train/report/plan_report.ts";
import { planStep, type StepPlan } from "../../../train/step_plan.ts";
import { tinyLlama } from "../../model/tiny.ts";

const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };
const sizes = { optimizer, dtype: "f32", batch: 2, seqLen: 16, threads: 2 } as const;

Deno.test("stages are told with all that they have, how long ranks idle, and the rank's slots", () => {
  const staged = (layers: LlamaOptions, pipeline: PipelineChoices = {}, rank = 0) =>
    planStep({
      ...{ ...sizes, model: tinyLlama(layers), accumulation: 8 },
      ranks: { mesh: new Mesh({ pp: 2, dp_shard: 1 }, 2), rank, pipeline },
    });
  const line = (plan: StepPlan) => stagesText(plan).replace(/[\d.]+ KiB$/, "N KiB");
  const plan = staged({ numLayers: 6 }), { slots } = plan.plan;
  assertEquals(
    stagesText(plan),
    "2 by 1F1B, 8 microbatches: tok_embeddings layers.0-2 | layers.3-5 norm output; " +
      `11.1 % idle if stages take equally long, 2 slots of ${bytesText(slots.bytes)}`,
  );
  assertEquals(
    line(staged({ numLayers: 6 }, { microbatches: 4 }, 1)),
    "2 by 1F1B, 4 microbatches 2 times a step: tok_embeddings layers.0-2 | layers.3-5 norm output; " +
      "20.0 % idle if stages take equally long, 2 slots of N KiB",
  );
  const modules = [["tok_embeddings", "layers.0"], ["layers.1", "layers.2", "norm"]];
  assertEquals(
    line(staged({ numLayers: 3, tiedEmbeddings: true }, { modules })).split("; ")[0],
    "2 by 1F1B, 8 microbatches: tok_embeddings layers.0 | tok_embeddings layers.1-2 norm",
    "both stages have a table that they share",
  );
  assertEquals(stagesText(planStep({ ...sizes, model: tinyLlama(), accumulation: 3 })), "");
});
