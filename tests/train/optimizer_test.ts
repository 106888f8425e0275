import { assert, assertAlmostEquals, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { interpret, type Memory } from "../../graph/interpret.ts";
import { verify } from "../../graph/verify.ts";
import { type Init, Module, namedParameters, type Parameter, parameter } from "../../model/module.ts";
import { traceInitialize, traceUpdate, type UpdateRule } from "../../train/optimizer.ts";
import { initialized, tinyLlama } from "../model/tiny.ts";

/** A module of parameters alone. */
class Parts extends Module {
  constructor(readonly parts: readonly Parameter[]) {
    super();
  }
}

const zeros: Init = { kind: "constant", value: 0 };
const options = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1, dtype: "f64" } as const;

function firstValues(init: Init, shape: number[], seed = [1, 2]): Float64Array {
  const memory: Memory = new Map();
  interpret(verify(traceInitialize(new Parts([parameter(shape, init)]), "f64")), { inputs: { seed }, memory });
  return memory.get("parts.0")!.data;
}

function moments(data: Float64Array): { mean: number; std: number; min: number; max: number } {
  const mean = data.reduce((s, x) => s + x, 0) / data.length;
  const std = Math.sqrt(data.reduce((s, x) => s + (x - mean) ** 2, 0) / data.length);
  return { mean, std, min: Math.min(...data), max: Math.max(...data) };
}

Deno.test("a normal parameter has its mean and deviation, and tails", () => {
  const { mean, std, min, max } = moments(firstValues({ kind: "normal", mean: 5, std: 2 }, [64, 64]));
  assertAlmostEquals(mean, 5, 4 * 2 / 64);
  assertAlmostEquals(std, 2, 0.1);
  assert(min < 5 - 3 * 2 && max > 5 + 3 * 2, `${min} to ${max}`);
});

Deno.test("a truncated normal stays inside of absolute bounds and loses the deviation that its tails had", () => {
  const { mean, std, min, max } = moments(
    firstValues({ kind: "truncated_normal", std: 1, low: -1, high: 1 }, [64, 64]),
  );
  assertAlmostEquals(mean, 0, 4 * 0.54 / 64);
  // sqrt(1 - 2 phi(1) / (2 Phi(1) - 1))
  assertAlmostEquals(std, 0.5396, 0.02);
  assert(min > -1 && max < 1 && min < -0.99 && max > 0.99, `${min} to ${max}`);
});

Deno.test("a uniform parameter fills its range evenly", () => {
  const { mean, std, min, max } = moments(firstValues({ kind: "uniform", low: -3, high: 1 }, [64, 64]));
  assertAlmostEquals(mean, -1, 4 * 1.1547 / 64);
  assertAlmostEquals(std, 4 / Math.sqrt(12), 0.04);
  assert(min > -3 && max < 1 && min < -2.99 && max > 0.99, `${min} to ${max}`);
});

Deno.test("a constant parameter is that everywhere", () => {
  assertEquals(firstValues({ kind: "constant", value: 7 }, [3]), Float64Array.of(7, 7, 7));
});

Deno.test("first values depend on the seed and the name alone", () => {
  const model = tinyLlama(),
    memory = initialized(model, [1, 2]),
    value = (m: Memory, name: string) => m.get(name)!.data;
  const name = "layers.1.attention.wq.weight";
  assertEquals(value(initialized(tinyLlama({ numLayers: 3, vocabSize: 50 }), [1, 2]), name), value(memory, name));
  // A wider matrix begins with the same numbers.
  const wider = value(initialized(tinyLlama({ ffnHiddenDim: 40 })), "layers.0.feed_forward.w1.weight");
  assertEquals(wider.slice(0, 16), value(memory, "layers.0.feed_forward.w1.weight").slice(0, 16));
  for (const seed of [[1, 3], [2, 2]] as const) {
    assert(value(initialized(model, seed), name).every((x, i) => x !== value(memory, name)[i]), `seed ${seed}`);
  }
  const other = value(memory, "layers.0.attention.wq.weight");
  assert(value(memory, name).every((x, i) => x !== other[i]), "another layer draws other numbers");
});

Deno.test("a model's first values have its deviations, and its moments are zero", () => {
  const model = tinyLlama({ dim: 32 }), memory = initialized(model);
  const std = (name: string): number => moments(memory.get(`${name}.weight`)!.data).std;
  assertAlmostEquals(std("tok_embeddings"), 1, 0.1);
  assertAlmostEquals(std("layers.1.attention.wq"), 0.02, 0.002);
  assertAlmostEquals(std("layers.0.attention.wo"), 0.02 / Math.sqrt(2), 0.0015);
  assertAlmostEquals(std("layers.1.feed_forward.w3"), 0.01, 0.001);
  assertAlmostEquals(std("output"), Math.sqrt(0.9733 / 32), 0.015);
  const { min, max } = moments(memory.get("output.weight")!.data);
  assert(Math.abs(min) <= 3 / Math.sqrt(32) && max <= 3 / Math.sqrt(32), `${min} to ${max}`);
  for (const name of namedParameters(model).keys()) {
    for (const moment of ["moment1", "moment2"]) {
      const { data, shape } = memory.get(`${moment}/${name}`)!;
      assertEquals(shape, namedParameters(model).get(name)!.shape);
      assert(data.every((x) => x === 0), `${moment}/${name}`);
    }
  }
});

const pair = new Parts([parameter([2], zeros), parameter([1], zeros)]);

/** Parameters (1, 2) and (3), whose accumulated gradients have the squared norm 0.3^2 + 0.4^2 + 1.2^2 = 1.3^2. */
function beforeUpdate(): Memory {
  const entry = (name: string, data: number[], shape = [data.length]) =>
    [name, { shape, data: Float64Array.from(data) }] as const;
  return new Map([
    entry("parts.0", [1, 2]),
    entry("parts.1", [3]),
    entry("gradient/parts.0", [0.3, -0.4]),
    entry("gradient/parts.1", [1.2]),
    entry("loss_sum", [12], []),
    entry("token_count", [6], []),
  ]);
}

const update = (memory: Memory, more: { maxNorm?: number; rule?: UpdateRule } = {}, step = 1) =>
  interpret(verify(traceUpdate(pair, { ...options, globalTokens: 8, ...more })), {
    inputs: { lr: [0.1], step: [step] },
    memory,
  });

Deno.test("an update reports the mean loss, the norm before clipping and the number of tokens", () => {
  const { loss, grad_norm, token_count } = update(beforeUpdate());
  assertEquals(loss.data[0], 2);
  assertEquals(token_count.data[0], 6);
  // Gradients were divided by 8 tokens, of which 6 were valid.
  assertAlmostEquals(grad_norm.data[0], 1.3 * 8 / 6, 1e-14);
});

Deno.test("two updates are AdamW's, with gradients of the valid tokens' mean, clipped", () => {
  const memory = beforeUpdate(), norm = 1.3 * 8 / 6, gradient = -0.4 * 8 / 6 * (1 / (norm + 1e-6));
  let p = 2, m = 0, v = 0;
  for (const step of [1, 2]) {
    update(memory, {}, step);
    m = 0.9 * m + 0.1 * gradient;
    v = 0.95 * v + 0.05 * gradient ** 2;
    p = p * (1 - 0.1 * 0.1) - 0.1 * (m / (1 - 0.9 ** step)) / (Math.sqrt(v / (1 - 0.95 ** step)) + 1e-8);
    assertAlmostEquals(memory.get("parts.0")!.data[1], p, 1e-14);
    assertAlmostEquals(memory.get("moment1/parts.0")!.data[1], m, 1e-14);
    assertAlmostEquals(memory.get("moment2/parts.0")!.data[1], v, 1e-14);
  }
});

Deno.test("a gradient shorter than the limit is not scaled up", () => {
  const memory = beforeUpdate();
  update(memory, { maxNorm: 100 });
  assertAlmostEquals(memory.get("moment1/parts.1")!.data[0], 0.1 * 1.2 * 8 / 6, 1e-14);
});

/** Stochastic gradient descent with momentum, which counts its steps in the second state. */
const momentum: UpdateRule = ({ parameter, gradient, moments: [m, n], lr, step }) => {
  const moved = m.mul(0.9).add(gradient);
  return { parameter: parameter.sub(moved.mul(lr)), moments: [moved, n.add(step)] };
};

Deno.test("a rule moves parameters by the clipped gradient, the rate and its two states, and AdamW is out of it", () => {
  const memory = beforeUpdate(), norm = 1.3 * 8 / 6, gradient = -0.4 * 8 / 6 * (1 / (norm + 1e-6));
  let p = 2, m = 0;
  for (const step of [1, 2]) {
    update(memory, { rule: momentum }, step);
    [p, m] = [p - 0.1 * (0.9 * m + gradient), 0.9 * m + gradient];
    assertAlmostEquals(memory.get("parts.0")!.data[1], p, 1e-14);
    assertAlmostEquals(memory.get("moment1/parts.0")!.data[1], m, 1e-14);
  }
  assertEquals(memory.get("moment2/parts.0")!.data[1], 1 + 2);
});

Deno.test("a state that a rule leaves alone is not written, and a shape that it changes is refused", () => {
  const rule: UpdateRule = ({ parameter, gradient, moments, lr }) => ({
    parameter: parameter.sub(gradient.mul(lr)),
    moments,
  });
  const { nodes } = verify(traceUpdate(pair, { ...options, globalTokens: 8, rule }));
  assertEquals(nodes.filter(({ op }) => op === "assign").length, 2);
  const wrong: UpdateRule = ({ gradient, moments }) => ({ parameter: gradient.sum(), moments });
  const error = assertThrows(() => traceUpdate(pair, { ...options, globalTokens: 8, rule: wrong }), RangeError);
  assertMatch(error.message, /makes a parameter of shape \[\]\n {2}expected: \[2\], the shape that it had\n {2}fix: /);
});

for (
  const [what, spoil] of [
    ["a gradient is not a number", (memory: Memory) => memory.get("gradient/parts.1")!.data[0] = NaN],
    ["a gradient is infinite", (memory: Memory) => memory.get("gradient/parts.1")!.data[0] = Infinity],
    ["no token is valid", (memory: Memory) => memory.get("token_count")!.data[0] = 0],
  ] as const
) {
  Deno.test(`when ${what}, parameters and moments stay as they are`, () => {
    for (const rule of [undefined, momentum]) {
      const memory = beforeUpdate();
      spoil(memory);
      const { grad_norm } = update(memory, { rule });
      assert(!Number.isFinite(grad_norm.data[0]));
      assertEquals(memory.get("parts.0")!.data, Float64Array.of(1, 2));
      assertEquals(memory.get("parts.1")!.data, Float64Array.of(3));
      assertEquals(memory.get("moment1/parts.0")!.data, Float64Array.of(0, 0));
    }
  });
}
