/** The graphs of a step that do not depend on how the model computes, only on its parameters: `initialize` gives them their first
 * values, `update` clips their gradients and moves them, by AdamW or by a rule of one's own.
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
  /** How parameters move instead; default: by AdamW. Of the options above, it leaves `maxNorm` alone in force. */
  readonly rule?: UpdateRule;
}

/** One parameter at the update of a step. */
export interface ParameterUpdate {
  /** Its value before the step. */
  readonly parameter: Tensor;
  /** Its gradient: the mean over the step's valid tokens, clipped. */
  readonly gradient: Tensor;
  /** Two states of its shape, which are 0 before the first step and are saved with it. */
  readonly moments: readonly [Tensor, Tensor];
  /** The learning rate, a scalar. */
  readonly lr: Tensor;
  /** The number of the step, from 1, a scalar. */
  readonly step: Tensor;
}

/** An optimizer: what a parameter and its two states become. It is traced once for each parameter; a state that it returns as it was
 * costs no time. */
export type UpdateRule = (update: ParameterUpdate) => {
  readonly parameter: Tensor;
  readonly moments: readonly [Tensor, Tensor];
};

/** The two moments of every parameter. */
export function momentStates(model: Module, dtype: RealType): State[] {
  return parameterStates(model, dtype).flatMap(momentsOf);
}

/** Graph `update`: one step of AdamW, or of a rule, on all parameters, with the gradients that the step's microbatches added up.
 * Inputs `lr` and `step` (from 1), scalars of the element type. Outputs `loss` (mean over the valid tokens), `grad_norm` (before
 * clipping) and `token_count`. Where the norm is not finite, or no token was valid, parameters and moments stay as they are.
 * @param options `globalTokens`: as given to `traceMicrobatch`. */
export function traceUpdate(
  model: Module,
  options: OptimizerOptions & { readonly dtype: RealType; readonly globalTokens: number },
): Graph {
  const { dtype, globalTokens, beta1, beta2, eps, weightDecay, maxNorm, rule } = options;
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
      const names = [parameter, ...momentsOf(parameter)].map((s) => s.name), gradient = [first, ...others][i];
      const before = names.map(read), [value, ...moments] = before;
      const moved = rule
        ? moveByRule(rule, { value, moments: [moments[0], moments[1]], gradient, lr, step, scale })
        : value.apply("adamw", [...moments, gradient, lr, step, scale], attrs);
      names.forEach((name, k) => moved[k] !== before[k] && builder.assign(name, moved[k].value));
    });
    return { loss: lossSum.div(count), grad_norm: gradNorm, token_count: count };
  });
}

/** A parameter and its moments as a rule leaves them; as they were, where the gradients' norm is not finite. */
function moveByRule(
  rule: UpdateRule,
  { value, moments, gradient, lr, step, scale }: {
    value: Tensor;
    moments: readonly [Tensor, Tensor];
    gradient: Tensor;
    lr: Tensor;
    step: Tensor;
    scale: Tensor;
  },
): Tensor[] {
  const moved = rule({ parameter: value, gradient: gradient.mul(scale), moments, lr, step });
  const isFinite = scale.mul(0).equal(0).broadcastTo(value.shape);
  return [value, ...moments].map((before, k) => {
    const after = [moved.parameter, ...moved.moments][k];
    if (String(after.shape) !== String(before.shape)) {
      const what = k === 0 ? "a parameter" : `moment ${k}`;
      throw new RangeError(
        `The optimizer's rule makes ${what} of shape [${after.shape}]\n  expected: [${before.shape}], the shape that it had\n` +
          `  fix: have the rule return tensors of the shapes that it is given`,
      );
    }
    return after.value === before.value ? before : isFinite.select(after, before);
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
