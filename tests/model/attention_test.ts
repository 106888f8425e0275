import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { i32 } from "../../graph/builder.ts";
import { interpret } from "../../graph/interpret.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { Attention, ROPE_SCALING, RotaryEmbedding } from "../../model/attention.ts";
import { type Linear, RMSNorm } from "../../model/layers.ts";
import { initialized, logitsOf, someRows, tinyLlama } from "./tiny.ts";

/** f_i as the table has them: the angles at position 1. */
function frequencies(rotary: RotaryEmbedding): number[] {
  const graph = traceGraph("table", [], (builder) => {
    const positions = new Tensor(builder, builder.input("positions", i32(1)));
    return { table: rotary.forward(positions, "f64") };
  });
  const { data } = interpret(graph, { inputs: { positions: [1] } }).table;
  return Array.from({ length: rotary.headDim / 2 }, (_, i) => Math.atan2(data[2 * i + 1], data[2 * i]));
}

const relative = (actual: number, expected: number) => assertAlmostEquals(actual, expected, 5e-10 * expected);

Deno.test("rotary frequencies of head size 128 equal the check values, scaled and not", () => {
  const plain = frequencies(new RotaryEmbedding(128, 500000, null));
  const scaled = frequencies(new RotaryEmbedding(128, 500000, ROPE_SCALING));
  const table: [number, number, number][] = [
    [1, 0.8146172339, 0.8146172339],
    [28, 3.2114459948e-3, 3.2114459948e-3],
    [29, 2.6160992529e-3, 2.1665707635e-3],
    [30, 2.1311195369e-3, 1.3718935678e-3],
    [34, 9.3847387036e-4, 1.7850781277e-4],
    [35, 7.6449698832e-4, 9.5562123540e-5],
    [63, 2.4551407911e-6, 3.0689259889e-7],
  ];
  for (const [i, f, g] of table) {
    relative(plain[i], f);
    relative(scaled[i], g);
  }
  for (let i = 0; i < 64; i++) {
    if (i <= 28) assertEquals(scaled[i], plain[i]);
    else if (i <= 34) assert(scaled[i] < plain[i] && scaled[i] > plain[i] / 8, `pair ${i} is blended`);
    else relative(scaled[i], plain[i] / 8);
  }
});

Deno.test("rotary frequencies of the debug model equal the check values", () => {
  const model = tinyLlama({ dim: 64, numHeads: 4 });
  const expected = [
    1,
    0.193922745,
    0.0376060309,
    7.29266474e-3,
    5.24846161e-4,
    3.42810220e-5,
    6.64786987e-6,
    1.28917317e-6,
  ];
  frequencies(model.rotaryEmbedding).forEach((f, i) => assertAlmostEquals(f, expected[i], 2e-9 * expected[i]));
});

Deno.test("a token is not seen by those before it", () => {
  const model = tinyLlama(), memory = initialized(model), rows = someRows(1, 6, 32);
  const before = logitsOf(model, memory, rows);
  const after = logitsOf(model, memory, { ...rows, tokens: rows.tokens.with(4, (rows.tokens[4] + 1) % 32) });
  assertEquals(after.slice(0, 4 * 32), before.slice(0, 4 * 32));
  for (const t of [4, 5]) assert(before[t * 32] !== after[t * 32], `the token at ${t} sees the change`);
});

Deno.test("with document ids a token sees its own document only", () => {
  const model = tinyLlama(),
    memory = initialized(model),
    rows = { ...someRows(1, 6, 32), documents: [0, 0, 0, 1, 1, 1] };
  const before = logitsOf(model, memory, rows);
  const after = logitsOf(model, memory, { ...rows, tokens: rows.tokens.with(0, (rows.tokens[0] + 1) % 32) });
  assertEquals(after.slice(3 * 32), before.slice(3 * 32));
  for (const t of [0, 1, 2]) assert(before[t * 32] !== after[t * 32], `the token at ${t} sees the change`);
});

Deno.test("attention depends on distances between positions, not on where a row starts", () => {
  const model = tinyLlama(), memory = initialized(model), rows = someRows(1, 6, 32);
  const here = logitsOf(model, memory, rows);
  const there = logitsOf(model, memory, { ...rows, positions: rows.positions.map((p) => p + 100) });
  const spread = logitsOf(model, memory, { ...rows, positions: rows.positions.map((p) => 3 * p) });
  here.forEach((x, i) => assertAlmostEquals(x, there[i], 1e-12));
  assert(here.some((x, i) => Math.abs(x - spread[i]) > 1e-6), "other distances give other logits");
});

/** Queries and keys of length one, before they are rotated. */
class NormedAttention extends Attention {
  readonly norm: RMSNorm = new RMSNorm(this.headDim, 0);
  protected override heads(x_BTD: Tensor, weight: Linear): Tensor {
    const heads = super.heads(x_BTD, weight);
    return weight === this.wv ? heads : this.norm.forward(heads);
  }
}

Deno.test("a subclass norms queries and keys, in whose logits the size of wq and wk then does not count", () => {
  const plain = tinyLlama(), normed = tinyLlama(), rows = { ...someRows(1, 6, 32), documents: [0, 0, 0, 1, 1, 1] };
  for (const layer of normed.layers) Object.assign(layer, { attention: new NormedAttention(normed.config) });
  for (const [model, isNormed] of [[plain, false], [normed, true]] as const) {
    const memory = initialized(model), before = logitsOf(model, memory, rows);
    for (const name of ["wq", "wk"]) {
      const weight = memory.get(`layers.0.attention.${name}.weight`)!;
      memory.set(`layers.0.attention.${name}.weight`, { ...weight, data: weight.data.map((x) => 3 * x) });
    }
    const after = logitsOf(model, memory, rows);
    assertEquals(before.every((x, i) => Math.abs(x - after[i]) < 1e-12), isNormed);
  }
});
