/** The plan of a step of a tiny Llama on a mesh.
 * @module */
import type { MeshOptions } from "../../../parallel/mesh.ts";
import { type MeshPlan, type MeshPlanOptions, planMesh } from "../../../train/report/mesh_plan.ts";
import { tinyLlama } from "../../model/tiny.ts";
import { meshOf } from "../../parallel/step_graphs.ts";

const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };

/** A data-parallel rank has two rows of 16 tokens in each of three microbatches. */
export function tinyPlan(axes: MeshOptions, options: Partial<MeshPlanOptions> = {}): MeshPlan {
  const sizes = { batch: 2, seqLen: 16, accumulation: 3, dtype: "f32", threads: 2 } as const;
  return planMesh({ model: tinyLlama(), name: "tiny", ranks: { mesh: meshOf(axes) }, optimizer, ...sizes, ...options });
}
