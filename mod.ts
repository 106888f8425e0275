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
export { f32, f64, i32 } from "./graph/builder.ts";
export type { Attr, Attrs, DType, Graph, Named, Node, State, StateKind, Type, Value } from "./graph/ir.ts";
export { interpret, type Memory, type RunOptions } from "./graph/interpret.ts";
export type { Arr } from "./graph/array.ts";
export { print } from "./graph/print.ts";
export { Tensor } from "./graph/tensor.ts";
export { grad, type Gradient, type TensorFunction, trace } from "./graph/trace.ts";
export { verify } from "./graph/verify.ts";
export { Attention, type AttentionOptions, RotaryEmbedding } from "./model/attention.ts";
export { FeedForward } from "./model/feed_forward.ts";
export { Embedding, Linear, RMSNorm } from "./model/layers.ts";
export { Llama, llama, type LlamaConfig, llamaConfig, llamaFlavors, type LlamaOptions } from "./model/llama.ts";
export { type Batch, CrossEntropy, type LossSum, type TrainableModel } from "./model/loss.ts";
export { bind, type Init, Module, namedParameters, numParameters, type Parameter, parameter } from "./model/module.ts";
export { type DatasetSpec, texts, type TextsSpec } from "./data/dataset.ts";
export { Tokenizer } from "./data/tokenizer.ts";
export { compile, Executable, type TypedArray } from "./train/executable.ts";
export { main } from "./train/command.ts";
export {
  type Evaluation,
  train,
  Trainer,
  type TrainOptions,
  type TrainStep,
  type ValidationOptions,
} from "./train/trainer.ts";

import { main } from "./train/command.ts";

if (import.meta.main) Deno.exit(await main(Deno.args));
