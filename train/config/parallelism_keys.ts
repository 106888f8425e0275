/** Keys of `[parallelism]`. @module */
import { z } from "zod";
import { SCHEDULES } from "../../parallel/pipeline/schedules.ts";
import { count, countOrMinusOne, countOrZero, flag, key, section, text } from "./key_types.ts";

/** `[parallelism]`: the mesh of ranks. */
export interface ParallelismConfig {
  pipeline_parallel_degree: number;
  pipeline_parallel_schedule: string;
  pipeline_parallel_schedule_csv: string | null;
  pipeline_parallel_layers_per_stage: number | null;
  pipeline_parallel_first_stage_less_layers: number;
  pipeline_parallel_last_stage_less_layers: number;
  pipeline_parallel_microbatch_size: number;
  module_fqns_per_model_part: string[][] | null;
  data_parallel_replicate_degree: number;
  data_parallel_shard_degree: number;
  fsdp_reshard_after_forward: "default" | "always" | "never";
  fsdp_prefetch: number;
  context_parallel_degree: number;
  context_parallel_load_balancer: "headtail" | null;
  context_parallel_rotate_method: "allgather" | "alltoall";
  tensor_parallel_degree: number;
  expert_parallel_degree: number;
  enable_async_tensor_parallel: boolean;
  disable_loss_parallel: boolean;
}

/** Its keys. */
export const parallelismKeys = section("The mesh of ranks. --mesh is short for the degrees.", {
  pipeline_parallel_degree: key(
    count,
    1,
    "Axis pp: ranks that share out the blocks, as stages of a pipeline.",
    "ranks",
  ),
  pipeline_parallel_schedule: key(
    text,
    "1F1B",
    `In which order ranks work on microbatches: ${
      SCHEDULES.map((s) => s.name).join(", ")
    }, in any case; Auto searches for the least idle time; a schedule_csv stands in its place.`,
  ),
  pipeline_parallel_schedule_csv: key(
    z.string().nullable(),
    null,
    "File of a schedule, a line for each rank with cells such as 0F0, 1B2, 3I1, 2W0; in place of a named one.",
  ),
  pipeline_parallel_layers_per_stage: key(
    count.nullable(),
    null,
    "Blocks of a stage; None: one stage on each rank, or two where the schedule has several.",
    "blocks",
  ),
  pipeline_parallel_first_stage_less_layers: key(
    countOrZero,
    1,
    "How many blocks less the first stage has than others, as it has the embedding too.",
    "blocks",
  ),
  pipeline_parallel_last_stage_less_layers: key(
    countOrZero,
    1,
    "How many blocks less the last stage has than others, as it has the head too.",
    "blocks",
  ),
  pipeline_parallel_microbatch_size: key(
    count,
    1,
    "Sequences of a microbatch; local_batch_size is a multiple of it, and goes through the pipeline as so many of them.",
    "sequences",
  ),
  module_fqns_per_model_part: key(
    z.array(z.array(text)).nullable().meta({ expected: "lists of paths, one for each stage, or None" }),
    null,
    'By stage, the paths of its modules: [["tok_embeddings", "layers.0"], ["layers.1", "norm", "output"]]; None: an even cut.',
  ),
  data_parallel_replicate_degree: key(count, 1, "Axis dp_replicate: replicas of the shards.", "ranks"),
  data_parallel_shard_degree: key(
    countOrMinusOne,
    -1,
    "Axis dp_shard: ranks that share out batch and parameters; -1: what the other axes leave of --nproc.",
    "ranks",
  ),
  fsdp_reshard_after_forward: key(
    z.enum(["default", "always", "never"]),
    "default",
    "Gather a block's parameters again for backward (always), or keep them for all microbatches of a step (never). default: never in stages, else always.",
  ),
  fsdp_prefetch: key(
    countOrZero,
    1,
    "How far ahead of their use parameters are gathered; 0: ranks compute and exchange in turns.",
    "blocks",
  ),
  context_parallel_degree: key(count, 1, "Axis cp: ranks that share out the sequence.", "ranks"),
  context_parallel_load_balancer: key(
    z.enum(["headtail"]).nullable(),
    "headtail",
    "Which tokens a rank of cp gets: chunks r and 2 cp - 1 - r, which is the same work for all; None: the r-th slice.",
  ),
  context_parallel_rotate_method: key(
    z.enum(["allgather", "alltoall"]),
    "allgather",
    "How keys and values get to the ranks of cp: gathered; or around a ring, slice by slice, in much less memory.",
  ),
  tensor_parallel_degree: key(count, 1, "Axis tp: ranks that share out each layer.", "ranks"),
  expert_parallel_degree: key(
    count,
    1,
    "Axis ep: ranks that share out experts, of those of dp_shard x cp; for models whose plan has parameters of that role.",
    "ranks",
  ),
  enable_async_tensor_parallel: key(
    flag,
    false,
    "Exchanges of tp go on beside the products that they belong to, which are cut into one for each rank's tokens.",
  ),
  disable_loss_parallel: key(flag, false, "Gather the logits before the loss, instead of a loss on slices of them."),
});
