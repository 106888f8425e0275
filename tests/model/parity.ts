/** Compares what runs our graphs with `tests/goldens/parity`, which PyTorch made: logits, loss, every gradient, three steps.
 * The interpreter is one such runner; the native library is another.
 * @module */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { i32 } from "../../graph/builder.ts";
import { type Graph, numel } from "../../graph/ir.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import type { RopeScaling } from "../../model/attention.ts";
import { type Llama, llama } from "../../model/llama.ts";
import { bind, namedParameters } from "../../model/module.ts";
import { traceUpdate } from "../../train/optimizer.ts";
import { type RealType, traceMicrobatch } from "../../train/step.ts";
import { type GoldenTensor, parityFolder, readSafetensors } from "../goldens.ts";

type Awaitable<T> = T | Promise<T>;

/** Graphs that share one state memory. */
export interface Session {
  /** Runs a graph by its name, as the first microbatch of a step. */
  run(graph: string, inputs: Record<string, ArrayLike<number>>): Awaitable<Record<string, ArrayLike<number>>>;
  /** The value of a state. */
  read(state: string): Awaitable<ArrayLike<number>>;
  close(): Awaitable<void>;
}

/** What runs graphs: `states` are the values to begin with, all others are zeros. */
export interface Runner {
  readonly name: string;
  readonly dtype: RealType;
  /** Largest error of a tensor, relative to the largest magnitude in it. */
  readonly tolerance: number;
  /** The same for parameters after three steps; default `tolerance`. Where a gradient is small AdamW enlarges its rounding, since
   * it divides by the gradient's own size. */
  readonly trainedTolerance?: number;
  open(graphs: readonly Graph[], states: ReadonlyMap<string, ArrayLike<number>>): Awaitable<Session>;
}

interface Scalars {
  readonly loss_sum: number;
  readonly count: number;
  readonly loss: number;
}

/** Of all cases. */
export interface Golden {
  readonly model: Record<string, number>;
  readonly rope_scaling: Record<string, number>;
  readonly optimizer: Record<"lr" | "beta1" | "beta2" | "eps" | "weight_decay" | "max_norm", number>;
  readonly batch: number;
  readonly tokens: number;
  readonly plain: Scalars;
  readonly scaled: Scalars;
  readonly documents: Scalars;
  readonly steps: readonly (Scalars & { grad_norm: number })[];
}

/** The values that parameters begin with. */
export function goldenStates(): Map<string, ArrayLike<number>> {
  return new Map([...load("parameters")].map(([name, { data }]) => [name, data]));
}

/** Tokens, targets, documents and positions of a step, from 0. */
export function goldenBatch(step: number, { batch, tokens }: Golden): Record<string, ArrayLike<number>> {
  const all = load("batches");
  const named = ["tokens", "targets", "documents"].map((kind) => [kind, all.get(`${kind}.${step}`)!.data]);
  return { ...Object.fromEntries(named), positions: Array.from({ length: batch * tokens }, (_, i) => i % tokens) };
}

const load = (file: string): Map<string, GoldenTensor> => readSafetensors(new URL(`${file}.safetensors`, parityFolder));
/** What the files beside the tensors say. */
export const golden = (): Golden => JSON.parse(Deno.readTextFileSync(new URL("parity.json", parityFolder)));

/** The model of the goldens. */
export function goldenModel({ model, rope_scaling: rope }: Golden, scaled: boolean): Llama {
  const ropeScaling: RopeScaling = {
    factor: rope.factor,
    lowFreqFactor: rope.low_freq_factor,
    highFreqFactor: rope.high_freq_factor,
    originalContext: rope.original_max_position_embeddings,
  };
  return llama("debug", {
    dim: model.dim,
    numLayers: model.n_layers,
    numHeads: model.n_heads,
    numKvHeads: model.n_kv_heads,
    ffnHiddenDim: model.ffn_hidden,
    vocabSize: model.vocab_size,
    normEps: model.norm_eps,
    ropeTheta: model.rope_theta,
    ropeScaling: scaled ? ropeScaling : null,
  });
}

/** Graph `logits`: the forward without a loss. */
export function traceLogits(
  model: Llama,
  { batch, seqLen, dtype, documents = false }: {
    readonly batch: number;
    readonly seqLen: number;
    readonly dtype: RealType;
    readonly documents?: boolean;
  },
): Graph {
  return traceGraph("logits", [], (builder) => {
    const input = (name: string): Tensor => new Tensor(builder, builder.input(name, i32(batch, seqLen)));
    const inputs = { tokens: input("tokens"), positions: input("positions") };
    const all = documents ? { ...inputs, documents: input("documents") } : inputs;
    return { logits: bind(model, { builder, dtype }, () => model.forward(all)) };
  });
}

function assertClose(what: string, actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  assertEquals(actual.length, expected.length, what);
  let error = 0, size = 0;
  for (let i = 0; i < expected.length; i++) {
    // Written so that a NaN counts as an error.
    if (!(Math.abs(actual[i] - expected[i]) <= error)) error = Math.abs(actual[i] - expected[i]);
    size = Math.max(size, Math.abs(expected[i]));
  }
  assert(error <= tolerance * size, `${what}: off by ${error}, more than ${tolerance} of the largest value ${size}`);
}

/** Registers the parity tests of one runner. */
export function testParity(runner: Runner): void {
  const { name, dtype, tolerance, trainedTolerance = tolerance } = runner;
  const close = (what: string, actual: ArrayLike<number>, expected: ArrayLike<number>) =>
    assertClose(what, actual, expected, tolerance);
  const near = (what: string, actual: ArrayLike<number>, expected: number) =>
    assertAlmostEquals(actual[0], expected, tolerance * Math.abs(expected), what);

  for (const kind of ["plain", "scaled", "documents"] as const) {
    Deno.test(`parity of ${name} with PyTorch: logits, loss and gradients, ${kind}`, async () => {
      const expected = golden(), { batch, tokens: seqLen } = expected, documents = kind === "documents";
      const model = goldenModel(expected, kind === "scaled"), globalTokens = batch * seqLen;
      const session = await runner.open([
        traceLogits(model, { batch, seqLen, dtype, documents }),
        traceMicrobatch(model, { batch, seqLen, dtype, documents, globalTokens }),
      ], goldenStates());
      const { tokens, targets, positions, documents: ids } = goldenBatch(0, expected);
      const inputs: Record<string, ArrayLike<number>> = { tokens, positions, ...(documents ? { documents: ids } : {}) };
      const tensors = load(kind);
      close("logits", (await session.run("logits", inputs)).logits, tensors.get("logits")!.data);
      await session.run("microbatch", { ...inputs, targets });
      near("loss_sum", await session.read("loss_sum"), expected[kind].loss_sum);
      near("token_count", await session.read("token_count"), expected[kind].count);
      const fqns = [...namedParameters(model).keys()];
      assertEquals(fqns, [...load("parameters").keys()]);
      for (const fqn of fqns) {
        const scaled = Float64Array.from(await session.read(`gradient/${fqn}`));
        const mean = scaled.map((g) => g * globalTokens / expected[kind].count);
        close(`gradient/${fqn}`, mean, tensors.get(`gradient/${fqn}`)!.data);
      }
      await session.close();
    });
  }

  Deno.test(`parity of ${name} with PyTorch: three steps of clipped AdamW`, async () => {
    const expected = golden(), { batch, tokens: seqLen, optimizer: o } = expected, globalTokens = batch * seqLen;
    const model = goldenModel(expected, false);
    const options = { beta1: o.beta1, beta2: o.beta2, eps: o.eps, weightDecay: o.weight_decay, maxNorm: o.max_norm };
    const session = await runner.open([
      traceMicrobatch(model, { batch, seqLen, dtype, globalTokens }),
      traceUpdate(model, { ...options, dtype, globalTokens }),
    ], goldenStates());
    for (const [i, step] of expected.steps.entries()) {
      const { tokens, targets, positions } = goldenBatch(i, expected);
      await session.run("microbatch", { tokens, targets, positions });
      const result = await session.run("update", { lr: [o.lr], step: [i + 1] });
      near(`loss of step ${i + 1}`, result.loss, step.loss);
      near(`grad_norm of step ${i + 1}`, result.grad_norm, step.grad_norm);
      near(`token_count of step ${i + 1}`, result.token_count, step.count);
    }
    for (const [fqn, { data, shape }] of load("trained")) {
      assertEquals(data.length, numel(shape));
      assertClose(fqn, await session.read(fqn), data, trainedTolerance);
    }
    await session.close();
  });
}
