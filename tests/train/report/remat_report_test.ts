import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { frontierText, rematText } from "../../../train/report/remat_report.ts";
import { compileStep } from "../../../train/step_plan.ts";
import { tinyLlama } from "../../model/tiny.ts";

const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };
const sizes = {
  model: tinyLlama(),
  optimizer,
  dtype: "f32",
  batch: 2,
  seqLen: 16,
  accumulation: 1,
  threads: 2,
} as const;

Deno.test("what backward makes again is told as a share of FLOPs, and what budgets cost as a table", () => {
  assertEquals(rematText(compileStep(sizes)), "recomputes 1.0 % of FLOPs");
  assertEquals(rematText(compileStep({ ...sizes, remat: { mode: "full" } })), "recomputes 23.7 % of FLOPs");
  const { search } = compileStep({ ...sizes, remat: { mode: "memory_budget", fraction: 0.5 } });
  const [title, ...lines] = frontierText(search!.frontier()).split("\n");
  assertStringIncludes(title, "Memory budgets");
  assert(
    lines.length > 3 && lines.every((line) => /^ +[\d,]+ B +\d+\.\d GFLOP +\d+\.\d %$/.test(line)),
    lines.join("\n"),
  );
});
