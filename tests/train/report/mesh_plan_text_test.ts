import { assertEquals, assertStringIncludes } from "@std/assert";
import type { ModelPlan } from "../../../graph/roles.ts";
import { meshPlanPage } from "../../../train/report/mesh_plan_page.ts";
import { flopsText, memoryRows, meshPlanText, meshText } from "../../../train/report/mesh_plan_text.ts";
import { golden } from "../../golden.ts";
import { tinyLlama } from "../../model/tiny.ts";
import { meshOf } from "../../parallel/step_graphs.ts";
import { tinyPlan } from "./mesh_plans.ts";

Deno.test("the plan of a tiny Llama on two shards times two parts of its tensors is a text", () => {
  golden("train/mesh_plan", `${meshPlanText(tinyPlan({ dp_shard: 2, tp: 2 }))}\n`);
});

Deno.test("the plan of a pipeline says what goes over pp, what each place there takes, and what happens when", () => {
  const model = tinyLlama({ numLayers: 4 });
  const plan = tinyPlan({ pp: 2, dp_shard: 2 }, { model, accumulation: 4 });
  golden("train/pipeline_plan", `${meshPlanText(plan)}\n`);
  assertStringIncludes(meshPlanPage(plan), "Drawn is one of 2 places along the pipeline (pp)");
});

Deno.test("one rank says nothing to anybody", () => {
  assertStringIncludes(meshPlanText(tinyPlan({})), "Collectives of a step, by place\n  none\n");
});

Deno.test("FLOPs have the unit that suits them", () => {
  assertEquals([0, 999, 1000, 2.5e9, 3e15, 4e21].map(flopsText), [
    ...["0 FLOP", "999 FLOP", "1.0 kFLOP", "2.5 GFLOP", "3.0 PFLOP", "4000.0 EFLOP"],
  ]);
});

Deno.test("a mesh names the axes that have more than one rank", () => {
  const mesh = { pp: 1, dp_replicate: 2, dp_shard: 512, cp: 1, tp: 8 };
  assertEquals(meshText({ mesh, ranks: 8192 }), "dp_replicate 2 x dp_shard 512 x tp 8 = 8,192 ranks");
  assertEquals(meshText({ mesh: { ...mesh, dp_replicate: 1, dp_shard: 1, tp: 1 }, ranks: 1 }), "1 rank");
});

Deno.test("a plan names axes, and a factor only where it is what one axis leaves of another", () => {
  const mesh = meshOf({ dp_shard: 4, ep: 2 }), pattern = "layers.*.feed_forward.w1.weight";
  const plan: ModelPlan = { parameters: [{ pattern, role: "expert", parts: 4 }], logits: "output", residual: [] };
  const planned = tinyPlan({}, { ranks: { mesh, plan } }), text = meshPlanText(planned);
  assertStringIncludes(text, "Mesh\n  dp_shard 4 (ep 2) = 4 ranks\n");
  const [, , stored, used] = text.slice(text.indexOf("feed_forward.w1.weight\n")).split("\n").map((s) => s.trim());
  assertEquals([stored, used], ["stored ep: Shard(0), dp_shard_mod_ep: Shard(0)", "used ep: Shard(0)"]);
  assertStringIncludes(text, "  all_to_all over ep (2 ranks), f32 ");
  assertStringIncludes(text, "  all_gather over dp_shard (4 ranks), f32 ");
  assertStringIncludes(meshPlanPage(planned), "2 neighbouring shards or lines share out the experts (ep)");
  for (const shown of [text, meshPlanPage(planned)]) assertEquals(shown.includes("dp_shard_in_ep"), false);
});

Deno.test("rows of memory add up to the arena", () => {
  const plan = tinyPlan({ dp_shard: 2 });
  assertEquals(memoryRows(plan).reduce((n, row) => n + row.bytes, 0), plan.memory.arena);
});
