/** Compares what runs our graphs with `tests/goldens/float8`, which torchao made: three steps of gradient descent with linear layers in
 * float8, by each recipe.
 * @module */
import { assert } from "@std/assert";
import type { Graph } from "../../graph/ir.ts";
import type { Float8Recipe } from "../../graph/passes/float8.ts";
import { fullPrecision, type Precision } from "../../graph/passes/precision.ts";
import { namedParameters } from "../../model/module.ts";
import { float8ProductsOf } from "../../train/float8.ts";
import { traceMicrobatch } from "../../train/step.ts";
import { readSafetensors } from "../goldens.ts";
import { golden, goldenBatch, goldenModel, goldenStates } from "../model/parity.ts";

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

/** Norms of the difference of two lists and of the second. */
function norms(actual: ArrayLike<number>, expected: ArrayLike<number>): [difference: number, size: number] {
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
  for (const recipe of ["tensorwise", "rowwise", "rowwise_with_gw_hp"] as const) {
    Deno.test(`losses and gradients of ${name} in float8 ${recipe} are torchao's, to ${tolerances[recipe]} of each norm`, async () => {
      const sizes = golden(), model = goldenModel(sizes, false), { batch, tokens: seqLen } = sizes;
      const globalTokens = batch * seqLen, float8 = float8ProductsOf(model, { recipe, filter: ["output"] });
      const graph = traceMicrobatch(model, { batch, seqLen, dtype: "f32", globalTokens });
      const session = await open(graph, { ...fullPrecision, float8 }, goldenStates());
      const last = readSafetensors(new URL(`${recipe}.safetensors`, folder));
      for (const [step, { loss, count, grad_norm }] of steps[recipe].entries()) {
        const { tokens, targets, positions } = goldenBatch(step, sizes),
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
