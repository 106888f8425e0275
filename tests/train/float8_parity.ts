/** Compares what runs our graphs with `tests/goldens/float8`, which torchao made: three steps of gradient descent with linear layers in
 * float8, by each recipe.
 * @module */
import { assert } from "@std/assert";
import { type Graph, numel } from "../../graph/ir.ts";
import { BLOCK, type Float8Recipe } from "../../graph/passes/float8.ts";
import { fullPrecision, type Precision } from "../../graph/passes/precision.ts";
import { namedParameters } from "../../model/module.ts";
import { float8ProductsOf } from "../../train/float8.ts";
import { traceMicrobatch } from "../../train/step.ts";
import { readSafetensors } from "../goldens.ts";
import { type Golden, golden, goldenBatch, goldenModel, goldenStates } from "../model/parity.ts";

type Awaitable<T> = T | Promise<T>;

/** A graph `microbatch` with its states. */
export interface Float8Session {
  run(inputs: Record<string, ArrayLike<number>>): Awaitable<unknown>;
  read(state: string): Awaitable<ArrayLike<number>>;
  write(state: string, data: Float64Array): Awaitable<void>;
  close(): Awaitable<void>;
}

interface Float8Golden {
  readonly lr: number;
  readonly steps: Readonly<Record<string, readonly { loss: number; count: number; grad_norm: number }[]>>;
}

const folder = new URL("../goldens/float8/", import.meta.url);

/** Sizes of the model and of a batch: for `mxfp8`, those of tools/make_float8_goldens.py, which blocks fit into. */
function sizesOf(recipe: Float8Recipe): Golden {
  const sizes = golden(), { model } = sizes;
  if (recipe !== "mxfp8") return sizes;
  return { ...sizes, batch: 2, tokens: BLOCK, model: { ...model, n_kv_heads: model.n_heads, ffn_hidden: 2 * BLOCK } };
}

/** Parameters to begin with, by the formula of tools/make_goldens.py, for those that its file is not of the size of.
 * @param named in the order there. */
function formulaStates(named: ReadonlyMap<string, { readonly shape: readonly number[] }>): Map<string, Float64Array> {
  return new Map([...named].map(([name, { shape }], p) => {
    const scale = name.includes("norm") ? 0.25 : name.includes("embeddings") ? 0.9 : 1.5 / Math.sqrt(shape.at(-1)!);
    const mean = name.includes("norm") ? 1 : 0, wave = (i: number) => Math.sin(1 + 0.7 * i + 1.3 * p + 0.011 * i * i);
    return [name, Float64Array.from({ length: numel(shape) }, (_, i) => mean + scale * wave(i))];
  }));
}

/** The batch of a step, by the formula there. */
function formulaBatch(step: number, { batch, tokens, model }: Golden): Record<string, number[]> {
  const places = Array.from({ length: batch * tokens }, (_, i) => ({ b: Math.floor(i / tokens), t: i % tokens }));
  const token = (b: number, t: number) =>
    (t + 4 * b + step) % 6 === 5 ? 0 : (7 * t * t + 11 * t + 17 * b + 5 * step) % model.vocab_size;
  return {
    tokens: places.map(({ b, t }) => token(b, t)),
    targets: places.map(({ b, t }) => (t + 2 * b + step) % 5 === 4 ? -100 : token(b, t + 1)),
    positions: places.map(({ t }) => t),
  };
}

/** Norms of the difference of two lists, and of the second. */
export function norms(actual: ArrayLike<number>, expected: ArrayLike<number>): [difference: number, size: number] {
  const square = (list: ArrayLike<number>, f: (x: number, i: number) => number) =>
    Math.sqrt(Array.from(list).reduce((sum, x, i) => sum + f(x, i) ** 2, 0));
  return [square(actual, (x, i) => x - expected[i]), square(expected, (x) => x)];
}

/** Registers the tests of one runner.
 * @param tolerances largest error of losses, and of gradients by their norms, behind the first step, which must agree to 1e-5. Where f32
 * has a number on the other side of the place where float8 rounds up instead of down, rows of gradients are off by a tenth. */
export function testFloat8Parity(
  name: string,
  tolerances: Readonly<Record<Float8Recipe, number>>,
  open: (
    graph: Graph,
    precision: Precision,
    states: ReadonlyMap<string, ArrayLike<number>>,
  ) => Awaitable<Float8Session>,
): void {
  const { lr, steps }: Float8Golden = JSON.parse(Deno.readTextFileSync(new URL("float8.json", folder)));
  for (const recipe of ["tensorwise", "rowwise", "rowwise_with_gw_hp", "mxfp8"] as const) {
    Deno.test(`losses and gradients of ${name} in float8 ${recipe} are torchao's, to ${tolerances[recipe]} of each norm`, async () => {
      const sizes = sizesOf(recipe),
        isOwn = recipe === "mxfp8",
        model = goldenModel(sizes, false),
        { batch, tokens: seqLen } = sizes;
      const globalTokens = batch * seqLen, float8 = float8ProductsOf(model, { recipe, filter: ["output"] });
      const graph = traceMicrobatch(model, { batch, seqLen, dtype: "f32", globalTokens });
      const last = readSafetensors(new URL(`${recipe}.safetensors`, folder));
      const session = await open(graph, { ...fullPrecision, float8 }, isOwn ? formulaStates(last) : goldenStates());
      for (const [step, { loss, count, grad_norm }] of steps[recipe].entries()) {
        const { tokens, targets, positions } = (isOwn ? formulaBatch : goldenBatch)(step, sizes),
          tolerance = step === 0 ? 1e-5 : tolerances[recipe];
        await session.run({ tokens, targets, positions });
        const off = Math.abs((await session.read("loss_sum"))[0] / count - loss);
        assert(off < tolerance * loss, `the loss of step ${step} is off by ${off}`);
        let squares = 0;
        for (const fqn of namedParameters(model).keys()) {
          const gradient = Float64Array.from(await session.read(`gradient/${fqn}`));
          squares += gradient.reduce((sum, g) => sum + g * g, 0);
          if (step === steps[recipe].length - 1) {
            const [difference, size] = norms(gradient, last.get(fqn)!.data);
            assert(difference < tolerance * size, `the gradient of ${fqn} is off by ${difference / size} of its norm`);
          }
          const before = await session.read(fqn);
          await session.write(fqn, gradient.map((g, i) => before[i] - lr * g));
        }
        const error = Math.abs(Math.sqrt(squares) - grad_norm);
        assert(error < tolerance * grad_norm, `the norm of the gradients of step ${step} is off by ${error}`);
      }
      await session.close();
    });
  }
}
