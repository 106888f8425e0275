/**
 * What must hold between keys that are each right on their own, and what is allowed but surprising.
 * @module
 */
import { closest } from "fastest-levenshtein";
import { flavorNamed, flavors } from "../../model/families.ts";
import { askedDecaySteps } from "../lr_schedule.ts";
import { isChat, isOwnText } from "../../data/dataset.ts";
import { hasStandIn, HUGGING_FACE, lrSchedule, modelSizes, packingOf, trainsOnChats } from "./derive.ts";
import { type Problem, show } from "./problem.ts";
import { float8Problems, float8Surprises } from "./quantize_check.ts";
import type { Config } from "./schema.ts";

/** What makes the keys contradict each other; `place` tells where a key was set. */
export function contradictions(config: Config, place: (name: string) => string): Problem[] {
  const problemsOf = [batchProblems, precisionProblems, modelProblems, profileProblems, tokenizerProblems];
  const groups = [...problemsOf, float8Problems, packingProblems, liveProblems];
  return groups.flatMap((problems) => problems(config, place));
}

/** A cycle holds its warm-up and its recorded steps. */
function profileProblems({ profiling }: Config, place: (name: string) => string): Problem[] {
  const { enable_profiling, profile_freq: freq, profiler_warmup: warmup, profiler_active: active } = profiling;
  if (!enable_profiling || warmup + active <= freq) return [];
  return [{
    code: "profile_cycle",
    what:
      `profiling.profile_freq = ${freq}${place("profiling.profile_freq")} is shorter than profiler_warmup = ${warmup}` +
      `${place("profiling.profiler_warmup")} and profiler_active = ${active}${
        place("profiling.profiler_active")
      } together`,
    expected: "a cycle that holds both",
    fix: `write profile_freq = ${warmup + active} or more`,
  }];
}

/** A page shows what the file of numbers holds. */
function liveProblems({ metrics }: Config, place: (name: string) => string): Problem[] {
  if (!metrics.live || metrics.jsonl_file !== "") return [];
  return [{
    code: "live_without_file",
    what: `metrics.live = true${place("metrics.live")} with metrics.jsonl_file = ""${place("metrics.jsonl_file")}`,
    expected: "a file of numbers, which the page shows",
    fix: "name one, or leave metrics.live out",
  }];
}

/** A run has one tokenizer. */
function tokenizerProblems({ data, model }: Config, place: (name: string) => string): Problem[] {
  if (data.tokenizer === null || model.hf_assets_path === null) return [];
  return [{
    code: "two_tokenizers",
    what: `data.tokenizer = ${show(data.tokenizer)}${place("data.tokenizer")} with model.hf_assets_path = ${
      show(model.hf_assets_path)
    }${place("model.hf_assets_path")}`,
    expected: "one tokenizer",
    fix: "leave one of them out; weights to begin from are checkpoint.initial_load_path",
  }];
}

/** Conversations are told apart by where they lie, and attention must not see across positions that restart. */
function packingProblems(config: Config, place: (name: string) => string): Problem[] {
  const { data, model: { attn_mask_type: mask } } = config,
    packing = packingOf(config),
    hasChats = trainsOnChats(config);
  const what = data.packing === null
    ? `training.dataset = "chat"${place("training.dataset")}`
    : `data.packing = ${show(packing)}${place("data.packing")}`;
  if (hasChats && packing !== "best-fit") {
    const expected = '"best-fit", as the end of a chat is known by where it lies';
    return [{
      code: "chat_packing",
      what: `${what} with training.dataset = "chat"`,
      expected,
      fix: "leave data.packing out",
    }];
  }
  if (packing === "windows" || mask !== "causal") return [];
  return [{
    code: "packing_without_mask",
    what: `${what} with model.attn_mask_type = ${show(mask)}${place("model.attn_mask_type")}`,
    expected: "attention that stays inside of a document, as positions restart in each",
    fix: "leave model.attn_mask_type out",
  }];
}

/** float64 is one type for everything. */
function precisionProblems({ training }: Config, place: (name: string) => string): Problem[] {
  const keys = ["mixed_precision_param", "mixed_precision_reduce"] as const;
  const [key] = training.dtype === "float64" ? keys.filter((k) => training[k] === "bfloat16") : [];
  if (!key) return [];
  return [{
    code: "precision_of_float64",
    what: `training.${key} = "bfloat16"${place(`training.${key}`)} with training.dtype = "float64"${
      place("training.dtype")
    }`,
    expected: "with float64 everything is computed in float64",
    fix: `write dtype = "float32", or leave ${key} out`,
  }];
}

function batchProblems({ training }: Config, place: (name: string) => string): Problem[] {
  const { local_batch_size: local, global_batch_size: global } = training;
  if (global === -1 || global % local === 0) return [];
  const down = Math.floor(global / local);
  const near = [down, down + 1].filter((n) => n > 0).map((n) => `${n * local} (accumulates over ${n})`);
  return [{
    code: "batch_not_a_multiple",
    what: `training.global_batch_size = ${global}${place("training.global_batch_size")} is not a multiple of ` +
      `training.local_batch_size = ${local}${place("training.local_batch_size")}`,
    expected: "gradients accumulate over global_batch_size / local_batch_size equal micro-batches",
    fix: `write global_batch_size = ${near.join(" or ")}, or change local_batch_size`,
  }];
}

/** Compares the sizes that are given with each other and with those of the flavor. */
function modelProblems({ model, checkpoint }: Config, place: (name: string) => string): Problem[] {
  const flavor = `${model.name}/${model.flavor}`;
  if (model.flavor === HUGGING_FACE) {
    const { enable, initial_load_in_hf, initial_load_path } = checkpoint;
    if (enable && initial_load_in_hf && (initial_load_path ?? model.hf_assets_path) !== null) return [];
    return [{
      code: "unknown_model",
      what: `model.flavor = "hf"${place("model.flavor")} without a folder to take the sizes from`,
      expected: "checkpoint.enable and checkpoint.initial_load_in_hf, with checkpoint.initial_load_path",
      fix: "set them, or another flavor",
    }];
  }
  if (!flavors.includes(flavor)) {
    return [{
      code: "unknown_model",
      what: `model.flavor = ${show(model.flavor)}${place("model.flavor")} of model.name = ${show(model.name)}` +
        `${place("model.name")} is not a known model`,
      expected: flavors.join(", "),
      fix: `write ${nearestModel(model.name, model.flavor).replace("/", " as name, ")} as flavor`,
    }];
  }
  const sizes = flavorNamed(flavor).sizes;
  const dim = model.dim ?? sizes.dim;
  const heads = model.n_heads ?? sizes.numHeads;
  const groups = model.n_kv_heads ?? (sizes.numKvHeads === sizes.numHeads ? heads : sizes.numKvHeads);
  const shown = (key: string, value: number) =>
    `model.${key} = ${value}${place(`model.${key}`) || ` (flavor ${model.flavor})`}`;
  const problems: Problem[] = [];
  const add = (what: string, expected: string, fix: string) =>
    problems.push({ code: "model_shape", what, expected, fix });
  if (model.head_dim !== null) {
    if (model.head_dim % 2 !== 0) {
      add(
        `${shown("head_dim", model.head_dim)} is odd`,
        "an even size, since rotary embeddings turn pairs",
        `write head_dim = ${model.head_dim + 1}, or leave it out for dim / n_heads`,
      );
    }
  } else if (dim / heads % 2 !== 0) {
    add(
      `${shown("dim", dim)} over ${shown("n_heads", heads)} makes heads of size ${Number((dim / heads).toFixed(2))}`,
      "a whole and even size, since rotary embeddings turn pairs",
      `write dim = ${Math.max(1, Math.round(dim / heads / 2)) * 2 * heads}, change n_heads, or set head_dim`,
    );
  }
  if (heads % groups !== 0) {
    const divisors = Array.from({ length: heads }, (_, i) => i + 1).filter((n) => heads % n === 0);
    add(
      `${shown("n_kv_heads", groups)} does not divide ${shown("n_heads", heads)}`,
      "as many query heads to each key and value head",
      `write n_kv_heads = ${divisors.filter((n) => n <= groups).at(-1)}; the divisors are ${divisors.join(", ")}`,
    );
  }
  return problems;
}

/** The model that was probably meant: the size of another family rather than a size that merely looks alike. */
function nearestModel(name: string, flavor: string): string {
  const sameSize = flavors.filter((known) => known.split("/")[1].toLowerCase() === flavor.toLowerCase());
  return closest(`${name}/${flavor}`, sameSize.length > 0 ? sameSize : flavors);
}

/** Keys that do something only beside others; a section's name stands for all its keys but the one that `needs` names. */
const dependent: readonly {
  readonly keys: readonly string[];
  readonly needs: string;
  readonly isMet: (config: Config, dryRun: boolean) => boolean;
}[] = [
  { keys: ["validation"], needs: "validation.enable", isMet: (c) => c.validation.enable },
  { keys: ["checkpoint"], needs: "checkpoint.enable", isMet: (c) => c.checkpoint.enable },
  { keys: ["metrics.live_port"], needs: "metrics.live", isMet: (c) => c.metrics.live },
  {
    keys: ["metrics.sample_prompt", "metrics.sample_tokens"],
    needs: "metrics.sample_freq above 0",
    isMet: (c) => c.metrics.sample_freq > 0,
  },
  {
    keys: ["metrics.save_tb_folder", "metrics.save_for_all_ranks"],
    needs: "metrics.enable_tensorboard",
    isMet: (c) => c.metrics.enable_tensorboard,
  },
  {
    keys: ["checkpoint.last_save_in_hf"],
    needs: "checkpoint.last_save_model_only",
    isMet: (c) => c.checkpoint.last_save_model_only,
  },
  {
    keys: ["checkpoint.staging_limit"],
    needs: 'checkpoint.async_mode = "async"',
    isMet: (c) => c.checkpoint.async_mode !== "disabled",
  },
  {
    keys: ["data.text_field", "data.shuffle"],
    needs: 'training.dataset = "text"',
    isMet: (c) => isOwnText({ name: c.training.dataset }) || isOwnText({ name: c.validation.dataset ?? "" }),
  },
  {
    keys: ["data.messages_field", "data.mask_prompt", "data.too_long"],
    needs: 'training.dataset = "chat"',
    isMet: (c) => trainsOnChats(c) || isChat({ name: c.validation.dataset ?? "" }),
  },
  ...(["float8", "mx"] as const).map((kind) => ({
    keys: [`quantize.linear.${kind}`],
    needs: `model.converters = ["quantize.linear.${kind}"]`,
    isMet: (c: Config) => c.model.converters.some((name) => name.endsWith(kind)),
  })),
  {
    keys: ["device.tf32"],
    needs: 'training.mixed_precision_param = "float32", and a GPU',
    isMet: (c) => c.training.mixed_precision_param === "float32" && c.device.kind !== "cpu",
  },
  { keys: ["profiling"], needs: "profiling.enable_profiling", isMet: (c) => c.profiling.enable_profiling },
  {
    keys: ["activation_checkpoint.selective_ac_option"],
    needs: 'activation_checkpoint.mode = "selective"',
    isMet: (c) => c.activation_checkpoint.mode === "selective",
  },
  {
    keys: ["activation_checkpoint.memory_budget"],
    needs: 'activation_checkpoint.mode = "memory_budget"',
    isMet: (c) => c.activation_checkpoint.mode === "memory_budget",
  },
  {
    keys: ["activation_checkpoint.visualize_memory_budget_pareto"],
    needs: "--dry-run",
    isMet: (_, dryRun) => dryRun,
  },
  {
    keys: ["model.rope_low_freq_factor", "model.rope_high_freq_factor", "model.rope_original_max_position_embeddings"],
    needs: "model.rope_scaling_factor above 1",
    isMet: (c) => c.model.flavor !== HUGGING_FACE && modelSizes(c).ropeScaling !== null,
  },
  {
    keys: ["model.multiple_of", "model.ffn_dim_multiplier"],
    needs: "model.ffn_hidden_dim to be left out",
    isMet: (c) => c.model.flavor !== HUGGING_FACE && c.model.ffn_hidden_dim === null,
  },
  {
    keys: ["parallelism.enable_async_tensor_parallel", "parallelism.disable_loss_parallel"],
    needs: "parallelism.tensor_parallel_degree above 1",
    isMet: (c) => c.parallelism.tensor_parallel_degree > 1,
  },
  {
    keys: ["parallelism.context_parallel_load_balancer", "parallelism.context_parallel_rotate_method"],
    needs: "parallelism.context_parallel_degree above 1",
    isMet: (c) => c.parallelism.context_parallel_degree > 1,
  },
];

/** Keys of the command line that change nothing in this run. Files keep such keys beside a switch that is off. */
function idle(config: Config, typed: ReadonlySet<string>, dryRun: boolean): string[] {
  return dependent.filter(({ isMet }) => !isMet(config, dryRun)).flatMap(({ keys, needs }) =>
    [...typed].filter((name) => name !== needs && keys.some((key) => name === key || name.startsWith(`${key}.`)))
      .map((name) => `${name} has no effect: it needs ${needs}`)
  );
}

const stepsText = (n: number): string => `${n} step${n === 1 ? "" : "s"}`;

/** What runs, but perhaps not as meant: one line each, for the header of the run.
 * @param typed keys that the command line has.
 * @param dryRun whether it is planned and not run. */
export function surprises(config: Config, typed: ReadonlySet<string>, dryRun: boolean): string[] {
  const { warmupSteps, totalSteps, decayRatio } = lrSchedule(config);
  const { steps } = config.training;
  const lines = idle(config, typed, dryRun);
  if (warmupSteps > totalSteps) {
    lines.push(`lr_scheduler.warmup_steps = ${warmupSteps} is cut to the ${stepsText(totalSteps)} of the schedule`);
  }
  const asked = askedDecaySteps(totalSteps, decayRatio);
  const left = Math.max(0, totalSteps - warmupSteps);
  if (decayRatio !== null && asked > left) {
    lines.push(
      `lr_scheduler.decay_ratio = ${decayRatio} asks for a decay of ${
        stepsText(asked)
      }, which is cut to the ${left} after the warm-up`,
    );
  }
  lines.push(...float8Surprises(config, dryRun));
  if (steps > totalSteps) {
    lines.push(
      `training.steps = ${steps} goes past lr_scheduler.total_steps = ${totalSteps}: ` +
        `the learning rate stays at min_lr_factor = ${config.lr_scheduler.min_lr_factor} of its peak`,
    );
  }
  const { training, validation, profiling, optimizer, model } = config;
  if (hasStandIn(config)) {
    lines.push(
      `model.hf_assets_path = ${show(model.hf_assets_path)} is not here: the tokenizer of the sample stands in`,
    );
  }
  if (optimizer.early_step_in_backward) {
    lines.push(
      "optimizer.early_step_in_backward: gradients are not clipped; all parameters are updated behind backward",
    );
  }
  if (profiling.enable_profiling && profiling.profile_freq > steps) {
    lines.push(
      `profiling.profile_freq = ${profiling.profile_freq} is beyond the ${steps} steps of the run: none is recorded`,
    );
  }
  if (
    validation.enable && training.dataset === "c4" && validation.dataset_path === null &&
    (validation.dataset ?? (training.dataset_path === null ? "" : "c4_validation")) === "c4_validation"
  ) {
    lines.push("validation reads held-out text of the sample, not of C4: set validation.dataset_path");
  }
  return lines;
}
