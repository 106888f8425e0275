/** The graphs of a step that do not depend on how the model computes, only on its parameters: `initialize` gives them their first
 * values, `update` clips their gradients and moves them by AdamW.
 * @module */
import type { Builder } from "../graph/builder.ts";
import { i32 } from "../graph/builder.ts";
import { type Attrs, gradientOf, type Graph, momentsOf, type State } from "../graph/ir.ts";
import { constant, Tensor } from "../graph/tensor.ts";
import { traceGraph } from "../graph/trace.ts";
import { type Init, type Module, namedParameters, parameterStates } from "../model/module.ts";
import { type RealType, sumStates, trainingSums } from "./step.ts";

/** A run's constants of AdamW and of clipping; the learning rate is an input of the update. */
export interface OptimizerOptions {
  /** Decay of the first moment per step. */
  readonly beta1: number;
  /** Decay of the second moment per step. */
  readonly beta2: number;
  /** Added to the root of the second moment. */
  readonly eps: number;
  /** Each step shrinks every parameter, norms and embeddings included, by the learning rate times this. */
  readonly weightDecay: number;
  /** Gradients with a longer norm are scaled down to it. */
  readonly maxNorm: number;
}

/** The two moments of every parameter. */
export function momentStates(model: Module, dtype: RealType): State[] {
  return parameterStates(model, dtype).flatMap(momentsOf);
}

/** Graph `update`: one step of AdamW on all parameters, with the gradients that the step's microbatches added up.
 * Inputs `lr` and `step` (from 1), scalars of the element type. Outputs `loss` (mean over the valid tokens), `grad_norm` (before
 * clipping) and `token_count`. Where the norm is not finite, or no token was valid, parameters and moments stay as they are.
 * @param options `globalTokens`: as given to `traceMicrobatch`. */
export function traceUpdate(
  model: Module,
  options: OptimizerOptions & { readonly dtype: RealType; readonly globalTokens: number },
): Graph {
  const { dtype, globalTokens, beta1, beta2, eps, weightDecay, maxNorm } = options;
  const parameters = parameterStates(model, dtype);
  const gradients = parameters.map((s) => gradientOf(s)), moments = momentStates(model, dtype);
  const states = [...parameters, ...gradients, ...moments, ...sumStates(trainingSums, dtype)];
  return traceGraph("update", states, (builder) => {
    const scalar = (name: string): Tensor => new Tensor(builder, builder.input(name, { dtype, shape: [] }));
    const read = (name: string): Tensor => new Tensor(builder, builder.read(name));
    const lr = scalar("lr"), step = scalar("step");
    const lossSum = read(trainingSums.loss), count = read(trainingSums.count);
    const [first, ...others] = gradients.map((s) => read(s.name));
    // Gradients are sums over tokens divided by globalTokens; this makes them means over the valid ones.
    const correction = count.reciprocal().mul(globalTokens);
    const gradNorm = first.apply("sum_squares", others)[0].sqrt().mul(correction);
    const clip = gradNorm.add(1e-6).reciprocal().mul(maxNorm).minimum(1);
    // 0 x norm is not a number where the norm is not finite, which an infinite norm would otherwise hide (maxNorm / norm = 0);
    // AdamW then leaves everything as it is.
    const scale = clip.mul(correction).add(gradNorm.mul(0));
    const attrs = { beta1, beta2, eps, weight_decay: weightDecay };
    parameters.forEach((parameter, i) => {
      const moments = momentsOf(parameter).map((s) => s.name);
      const operands = [...moments.map(read), [first, ...others][i], lr, step, scale];
      const moved = read(parameter.name).apply("adamw", operands, attrs);
      [parameter.name, ...moments].forEach((state, k) => builder.assign(state, moved[k].value));
    });
    return { loss: lossSum.div(count), grad_norm: gradNorm, token_count: count };
  });
}

/** Graph `initialize`: gives every parameter its first value, from input `seed` i32 `[2]` and its FQN, and sets moments to zero. */
export function traceInitialize(model: Module, dtype: RealType): Graph {
  const moments = momentStates(model, dtype);
  return traceGraph("initialize", [...parameterStates(model, dtype), ...moments], (builder) => {
    const seed = new Tensor(builder, builder.input("seed", i32(2)));
    for (const [name, { shape, init }] of namedParameters(model)) {
      builder.assign(name, initialValue(builder, seed, { name, dtype, shape, init }).value);
    }
    for (const state of moments) builder.assign(state.name, constant(builder, 0, state).value);
  });
}

function initialValue(
  builder: Builder,
  seed: Tensor,
  { name, dtype, shape, init }: { name: string; dtype: RealType; shape: readonly number[]; init: Init },
): Tensor {
  if (init.kind === "constant") return constant(builder, init.value, { dtype, shape });
  const [a, b] = init.kind === "uniform" ? [init.low, init.high] : [init.mean ?? 0, init.std];
  const bounds: Attrs = init.kind === "truncated_normal" ? { low: init.low, high: init.high } : {};
  return seed.apply("random", [], { kind: init.kind, name, shape: [...shape], dtype, a, b, ...bounds })[0];
}
