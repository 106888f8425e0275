/**
 * libtitan pre-trains Llama models from TypeScript. Import what an experiment needs, or run this file for the command line.
 * Importing it loads no native code; the first thing that runs on a device does.
 *
 * @example Train on text of one's own
 * ```ts ignore
 * import { llama, texts, train } from "jsr:@libtitan/titan";
 *
 * const run = train({ model: llama("debug", { dim: 128 }), data: texts("notes/*.md"), steps: 200 });
 * for await (const { step, loss } of run) console.log(step, loss);
 * ```
 * @module
 */
import "./ffi/runtime.ts";

export { type Builder, f32, f64, i32 } from "./graph/builder.ts";
export type {
  Attr,
  Attrs,
  DimRole,
  DType,
  Float8,
  Graph,
  Input,
  Level,
  Named,
  Node,
  Origin,
  Phase,
  State,
  StateKind,
  Type,
  Value,
} from "./graph/ir.ts";
export { interpret, type Memory, type RunOptions } from "./graph/interpret.ts";
export type { Arr } from "./graph/array.ts";
export { print } from "./graph/print.ts";
export { Tensor, type Tracer } from "./graph/tensor.ts";
export { grad, type Gradient, type TensorFunction, trace } from "./graph/trace.ts";
export { verify } from "./graph/verify.ts";
export {
  Attention,
  type AttentionContext,
  type AttentionOptions,
  type RopeScaling,
  RotaryEmbedding,
} from "./model/attention.ts";
export { Cache, type GenerativeModel, isGenerative, type NewTokens } from "./model/cache.ts";
export { FeedForward } from "./model/feed_forward.ts";
export { Embedding, Linear, RMSNorm } from "./model/layers.ts";
export {
  Llama,
  llama,
  type LlamaConfig,
  llamaConfig,
  llamaFlavors,
  type LlamaOptions,
  TransformerBlock,
} from "./model/llama.ts";
export { buildModel } from "./model/families.ts";
export type { FamilyModel } from "./model/family.ts";
export type { TransformerOptions, TransformerSizes } from "./model/sizes.ts";
export { type Batch, CrossEntropy, type Family, type LossSum, type TrainableModel } from "./model/loss.ts";
export {
  bind,
  type Init,
  Module,
  namedParameters,
  numParameters,
  type Parameter,
  parameter,
  type Target,
} from "./model/module.ts";
export {
  chats,
  type DatasetSpec,
  type MixtureSpec,
  type NamedSpec,
  type OneSpec,
  type OwnText,
  type SourceSpec,
  texts,
  type TextsSpec,
} from "./data/dataset.ts";
export type { ChatOptions } from "./data/chat.ts";
export type { StreamCache } from "./data/hub/shards.ts";
export type { Packing } from "./data/packing.ts";
export { type EncodeOptions, Tokenizer } from "./data/tokenizer.ts";
export type { CommOptions, SimulatedLink } from "./ffi/comm.ts";
export type { DeviceInfo, ProcessMemory } from "./ffi/device.ts";
export type { CacheRole, ModelPlan, ParameterRole } from "./graph/roles.ts";
export type { Degrees } from "./graph/layout.ts";
export type { LoadBalancer } from "./parallel/balance.ts";
export { type Environment, LaunchError, type World, worldOf } from "./launch/world.ts";
export { type Axis, Mesh, type MeshOptions } from "./parallel/mesh.ts";
export type { PlanOptions } from "./parallel/plan.ts";
export type { PipelineChoices } from "./train/pipeline.ts";
export type { MeshChoices, MeshLayout } from "./train/ranks.ts";
export type { Float8Products, Float8Recipe } from "./graph/passes/float8.ts";
export type { Precision } from "./graph/passes/precision.ts";
export type { RematPolicy } from "./graph/passes/remat.ts";
export type { RematBudget } from "./graph/passes/remat_search.ts";
export { type StatusName, TitanError } from "./ffi/error.ts";
export { Status } from "./ffi/symbols.ts";
export { LibraryError } from "./ffi/library.ts";
export { DataError, type DataErrorCode, type DataProblem } from "./data/error.ts";
export { compile, Executable } from "./train/executable.ts";
export type { FileType, StoredType, TypedArray } from "./train/typed_array.ts";
export type { BlockType } from "./train/weights/gguf_blocks.ts";
export { main } from "./train/command/command.ts";
export type { Saved, Start } from "./train/checkpoint/checkpoints.ts";
export { CheckpointError } from "./train/checkpoint/error.ts";
export { load, type LoadableTensor, type LoadedCheckpoint } from "./train/checkpoint/load.ts";
export type { CheckpointOptions, Part } from "./train/checkpoint/policy.ts";
export {
  type Decoder,
  type DecoderOptions,
  type DecoderRanks,
  type ModelWeights,
  openDecoder,
} from "./train/generate/decoder.ts";
export type { ChatMessage } from "./data/chat_template.ts";
export { GenerateError } from "./train/generate/error.ts";
export { generate, type GenerateOptions } from "./train/generate/generate.ts";
export type { SamplingOptions } from "./train/generate/sampler.ts";
export type { RunUnderWay } from "./train/generate/source.ts";
export type { GenerationStatistics, TextEnd, TextPiece } from "./train/generate/text_generator.ts";
export type { DecayType, LrScheduleOptions } from "./train/lr_schedule.ts";
export { MemoryError } from "./train/machine_memory.ts";
export type { ParameterValues } from "./train/parameters.ts";
export type { OptimizerOptions, ParameterUpdate, UpdateRule } from "./train/optimizer.ts";
export type { InstructionInfo } from "./graph/passes/encode.ts";
export type { InstructionTime, StepProfile } from "./train/report/profile.ts";
export type { RealType } from "./train/step.ts";
export type { DecoderSizes } from "./train/step_plan.ts";
export { DivergedError, type StepNumbers } from "./train/step_program.ts";
export type {
  CompleteOptions,
  DataloaderOptions,
  Evaluation,
  TrainOptions,
  TrainStep,
  ValidationOptions,
} from "./train/options.ts";
export { train, Trainer } from "./train/trainer.ts";

if (import.meta.main) Deno.exit(await (await import("./tools/titan.ts")).titan(Deno.args));
