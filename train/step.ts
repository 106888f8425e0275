/** The graphs of a step that a model decides: forward, backward and accumulation of one microbatch, and evaluation. Gradients and
 * losses are sums over tokens; `train/optimizer.ts` has the update, where the means are taken.
 * @module */
import type { Builder } from "../graph/builder.ts";
import { i32 } from "../graph/builder.ts";
import type { DType, Float8, Graph, State } from "../graph/ir.ts";
import { autodiff } from "../graph/passes/autodiff.ts";
import { Tensor } from "../graph/tensor.ts";
import { traceGraph } from "../graph/trace.ts";
import type { Batch, LossSum, TrainableModel } from "../model/loss.ts";
import { bind, namedParameters } from "../model/module.ts";
import { assignStages } from "../parallel/pipeline/assign_stages.ts";
import type { Stages } from "../parallel/pipeline/stages.ts";

/** Element type of parameters, gradients, moments and activations. */
export type RealType = Exclude<DType, "i32" | Float8>;

/** What one run of a graph sees. */
export interface BatchShape {
  /** Sequences. */
  readonly batch: number;
  /** Tokens of a sequence. */
  readonly seqLen: number;
  readonly dtype: RealType;
  /** Is there an input `documents`, so that attention stays inside of a document? Without it, the positions of each row count from 0. */
  readonly documents?: boolean;
}

/** Sums over the microbatches of a step, or over the batches of an evaluation. */
interface Sums {
  readonly loss: string;
  readonly count: string;
}

/** States of a step's loss and number of valid tokens. */
export const trainingSums: Sums = { loss: "loss_sum", count: "token_count" };
/** States of an evaluation's loss and number of valid tokens. */
export const evaluationSums: Sums = { loss: "eval_loss_sum", count: "eval_token_count" };

/** Sums are scalars of the compute type. */
export function sumStates({ loss, count }: Sums, dtype: RealType): State[] {
  return [loss, count].map((name) => ({ name, kind: "sum", dtype, shape: [] }));
}

/** The forward graph: accumulates loss and count into `sums`; the loss is also its output `loss_sum`. */
function traceForward(name: string, model: TrainableModel, shape: BatchShape, sums: Sums): Graph {
  return traceGraph(name, sumStates(sums, shape.dtype), (builder) => {
    const inputs = batchInputs(builder, shape);
    const { lossSum, count } = bind(model, { builder, dtype: shape.dtype }, (): LossSum => model.loss(inputs));
    builder.accumulate(sums.loss, lossSum.value);
    builder.accumulate(sums.count, count.value);
    return { loss_sum: lossSum };
  });
}

function batchInputs(builder: Builder, { batch, seqLen, documents }: BatchShape): Batch {
  const counts = documents ? undefined : "positions"; // with documents they may restart
  const input = (name: string): Tensor =>
    new Tensor(builder, builder.input(name, i32(batch, seqLen), ["batch", "sequence"], name === counts));
  const [tokens, targets, positions] = ["tokens", "targets", "positions"].map(input);
  return { tokens, targets, positions, ...(documents ? { documents: input("documents") } : {}) };
}

/** Graph `microbatch`: adds the gradient of each parameter into `gradient/FQN`, the loss into `loss_sum` and the number of valid
 * tokens into `token_count`; the first microbatch of a step overwrites them. Inputs `tokens`, `targets`, `positions` and perhaps
 * `documents`, i32 `[batch, seqLen]`.
 * @param options `globalTokens`: tokens of a whole step, batch x sequence length. Gradients are divided by it, which keeps
 * their size apart from the batch's; the update corrects for tokens that were ignored. `stages`: of a pipeline, which nodes then have.
 * @throws {TypeError} when a parameter has no influence on the loss. */
export function traceMicrobatch(
  model: TrainableModel,
  options: BatchShape & { readonly globalTokens: number; readonly stages?: Stages },
): Graph {
  const names = [...namedParameters(model).keys()];
  const whole = traceForward("microbatch", model, options, trainingSums);
  const forward = options.stages ? assignStages(whole, options.stages) : whole;
  const graph = autodiff(forward, { of: "loss_sum", seed: 1 / options.globalTokens, states: names, keep: false });
  const trained = new Set(graph.states.filter((s) => s.kind === "gradient").map((s) => s.of));
  const idle = names.filter((name) => !trained.has(name));
  if (idle.length > 0) {
    throw new TypeError(
      `Cannot train ${
        idle.map((n) => `"${n}"`).join(", ")
      }: no gradient, since the loss of ${model.constructor.name} does not ` +
        `depend on it; use the parameter in loss(), or remove it from the model`,
    );
  }
  return graph;
}

/** Graph `evaluate`: the forward alone, adding into `eval_loss_sum` and `eval_token_count`; the first batch of an evaluation
 * overwrites them. Inputs as those of {@linkcode traceMicrobatch}. */
export function traceEvaluate(model: TrainableModel, shape: BatchShape & { readonly stages?: Stages }): Graph {
  const graph = { ...traceForward("evaluate", model, shape, evaluationSums), outputs: [] };
  return shape.stages ? assignStages(graph, shape.stages) : graph;
}

/** Graph `evaluate_result`: outputs `loss`, the mean over the valid tokens of an evaluation, and `token_count`. */
export function traceEvaluateResult(dtype: RealType): Graph {
  return traceGraph("evaluate_result", sumStates(evaluationSums, dtype), (builder) => {
    const [lossSum, count] = [evaluationSums.loss, evaluationSums.count].map((s) =>
      new Tensor(builder, builder.read(s))
    );
    return { loss: lossSum.div(count), token_count: count };
  });
}
