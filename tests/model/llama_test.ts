import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { interpret } from "../../graph/interpret.ts";
import { numel } from "../../graph/ir.ts";
import { print } from "../../graph/print.ts";
import { verify } from "../../graph/verify.ts";
import { ROPE_SCALING } from "../../model/attention.ts";
import { llama, llamaConfig, llamaFlavors } from "../../model/llama.ts";
import { namedParameters, numParameters } from "../../model/module.ts";
import { traceMicrobatch } from "../../train/step.ts";
import { initialized, someRows, tinyLlama } from "./tiny.ts";

Deno.test("names and shapes of the debug model are torchtitan's", () => {
  const block = (n: number): [string, number[]][] => [
    [`layers.${n}.attention.wq.weight`, [256, 256]],
    [`layers.${n}.attention.wk.weight`, [256, 256]],
    [`layers.${n}.attention.wv.weight`, [256, 256]],
    [`layers.${n}.attention.wo.weight`, [256, 256]],
    [`layers.${n}.feed_forward.w1.weight`, [768, 256]],
    [`layers.${n}.feed_forward.w2.weight`, [256, 768]],
    [`layers.${n}.feed_forward.w3.weight`, [768, 256]],
    [`layers.${n}.attention_norm.weight`, [256]],
    [`layers.${n}.ffn_norm.weight`, [256]],
  ];
  assertEquals([...namedParameters(llama("debugmodel"))].map(([name, { shape }]) => [name, shape]), [
    ["tok_embeddings.weight", [2048, 256]],
    ...[0, 1, 2, 3, 4, 5].flatMap(block),
    ["norm.weight", [256]],
    ["output.weight", [2048, 256]],
  ]);
});

Deno.test("shapes with fewer key and value heads are those of 8B", () => {
  const parameters = namedParameters(llama("8B"));
  const shape = (name: string) => parameters.get(`layers.31.${name}.weight`)!.shape;
  assertEquals(shape("attention.wq"), [4096, 4096]);
  assertEquals(shape("attention.wk"), [1024, 4096]);
  assertEquals(shape("attention.wv"), [1024, 4096]);
  assertEquals(shape("attention.wo"), [4096, 4096]);
  assertEquals(shape("feed_forward.w1"), [14336, 4096]);
  assertEquals(shape("feed_forward.w2"), [4096, 14336]);
});

Deno.test("every flavor has torchtitan's number of parameters", () => {
  const counts = Object.fromEntries(llamaFlavors.map((flavor) => [flavor, numParameters(llama(flavor))]));
  assertEquals(counts, {
    "llama3/debugmodel": 6_163_712,
    "llama3/debugmodel_flex_attn": 6_163_712,
    "llama3/debugmodel_varlen_attn": 6_163_712,
    "llama3/8B": 8_030_261_248,
    "llama3/8B_flex": 8_030_261_248,
    "llama3/8B_varlen": 8_030_261_248,
    "llama3/70B": 70_553_706_496,
    "llama3/405B": 405_853_388_800,
    "llama2/271M": 271_090_688,
    "llama2/1B": 1_055_991_808,
    "llama2/7B": 6_738_415_616,
    "llama2/13B": 13_015_864_320,
    "llama2/26B": 25_704_043_520,
    "llama2/70B": 68_976_648_192,
  });
});

Deno.test("a flavor is found by name, with or without its family", () => {
  assertEquals(llamaConfig("debug"), llamaConfig("llama3/debugmodel"));
  assertEquals(llamaConfig("70B").vocabSize, 128256);
  assertEquals(llamaConfig("llama2/70B").vocabSize, 32000);
  assertThrows(
    () => llama("9B"),
    RangeError,
    `Cannot find Llama flavor "9B": expected one of llama3/debugmodel, llama3/8B`,
  );
  assertThrows(() => llama("llama4/8B"), RangeError, `"llama4/8B"`);
});

Deno.test("Llama 3 scales rotary frequencies at every size, Llama 2 never, and both can be told", () => {
  for (const flavor of llamaFlavors) {
    assertEquals(llamaConfig(flavor).ropeScaling, flavor.startsWith("llama3") ? ROPE_SCALING : null);
  }
  assertEquals(llamaConfig("8B", { ropeScaling: null }).ropeScaling, null);
  assertEquals(llamaConfig("llama2/7B", { ropeScaling: ROPE_SCALING }).ropeScaling, ROPE_SCALING);
});

Deno.test("any size can be replaced, and what follows from it follows", () => {
  const config = llamaConfig("debug", { dim: 128, numHeads: 4, normEps: undefined });
  assertEquals([config.dim, config.numHeads, config.numKvHeads, config.ffnHiddenDim], [128, 4, 4, 512]);
  assertEquals([config.numLayers, config.vocabSize, config.normEps, config.ropeTheta], [6, 2048, 1e-5, 500000]);
  assertEquals(llamaConfig("debug", { ffnHiddenDim: 100 }).ffnHiddenDim, 100);
  assertEquals(llamaConfig("debug", { multipleOf: 100 }).ffnHiddenDim, 700);
  assertEquals(llamaConfig("debug", { ffnDimMultiplier: 2 }).ffnHiddenDim, 1536);
});

Deno.test("sizes that do not fit each other are refused with both numbers", () => {
  assertThrows(() => llama("debug", { dim: 100 }), RangeError, "Cannot have 16 heads of size 6.25: expected");
  assertThrows(() => llama("debug", { headDim: 5 }), RangeError, "16 heads of size 5: expected");
  assertThrows(() => llama("debug", { dim: 48 }), RangeError, "heads of size 3: expected an even whole size");
  assertThrows(
    () => llama("debug", { numKvHeads: 3 }),
    RangeError,
    "Cannot share 3 key/value heads among 16 query heads",
  );
});

Deno.test("heads may have a size of their own, whatever dim is: products, rotations, parameters and FLOPs follow", () => {
  const model = llama("debug", { dim: 100, headDim: 24, numHeads: 16, numKvHeads: 4 }), plain = llama("debug");
  const shapes = new Map([...namedParameters(model)].map(([name, { shape }]) => [name, shape]));
  for (
    const [name, shape] of [["wq", [384, 100]], ["wk", [96, 100]], ["wv", [96, 100]], ["wo", [100, 384]]] as const
  ) assertEquals(shapes.get(`layers.5.attention.${name}.weight`), shape, name);
  assertEquals([model.rotaryEmbedding.headDim, plain.rotaryEmbedding.headDim, plain.config.headDim], [24, 16, 16]);
  const { ffnHiddenDim } = model.config, block = 100 * (2 * 384 + 2 * 96 + 3 * ffnHiddenDim + 2);
  assertEquals(numParameters(model), 6 * block + 2 * 2048 * 100 + 100);
  assertEquals(model.flopsPerToken(32), 6 * (numParameters(model) - 2048 * 100) + 12 * 6 * 384 * 32);
});

Deno.test("initial deviations are torchtitan's: smaller with depth for what adds to the residual stream", () => {
  const inits = new Map([...namedParameters(llama("debug"))].map(([name, { init }]) => [name, init]));
  const cut = { low: -2, high: 2 };
  assertEquals(inits.get("tok_embeddings.weight"), { kind: "normal", std: 1 });
  for (const name of ["attention.wq", "attention.wk", "attention.wv", "feed_forward.w1"]) {
    assertEquals(inits.get(`layers.5.${name}.weight`), { kind: "truncated_normal", std: 0.02, ...cut });
  }
  for (const name of ["attention.wo", "feed_forward.w2", "feed_forward.w3"]) {
    for (const layer of [0, 1, 5]) {
      const std = 0.02 / Math.sqrt(2 * (layer + 1));
      assertEquals(inits.get(`layers.${layer}.${name}.weight`), { kind: "truncated_normal", std, ...cut });
    }
  }
  for (const name of ["norm", "layers.0.attention_norm", "layers.0.ffn_norm"]) {
    assertEquals(inits.get(`${name}.weight`), { kind: "constant", value: 1 });
  }
  assertEquals(inits.get("output.weight"), { kind: "truncated_normal", std: 1 / 16, low: -3 / 16, high: 3 / 16 });
});

Deno.test("the first loss is that of logits of variance one: ln V + 0.49", () => {
  const vocabSize = 256, batch = 4, seqLen = 48, model = tinyLlama({ dim: 32, vocabSize });
  const memory = initialized(model), rows = someRows(batch, seqLen, vocabSize);
  const graph = verify(traceMicrobatch(model, { batch, seqLen, dtype: "f64", globalTokens: batch * seqLen }));
  interpret(graph, { inputs: rows, memory });
  const loss = memory.get("loss_sum")!.data[0] / memory.get("token_count")!.data[0];
  assertAlmostEquals(loss, Math.log(vocabSize) + 0.49, 0.2);
});

Deno.test("FLOPs of a token are torchtitan's: 8B at 8192 tokens and 5762 tokens a second are 333.7 TFLOPS", () => {
  assertAlmostEquals(llama("8B").flopsPerToken(8192) * 5762 / 1e12, 333.7, 0.05);
});

Deno.test("every node of a block carries a path inside of it, forward and backward", () => {
  const model = tinyLlama();
  const graph = traceMicrobatch(model, { batch: 1, seqLen: 4, dtype: "f32", globalTokens: 4 });
  const roots = new Set(graph.nodes.map((n) => n.scope.split(".").slice(0, 2).join(".")));
  assertEquals([...roots].sort(), [
    "",
    "cross_entropy",
    "layers.0",
    "layers.1",
    "norm",
    "output",
    "rotary_embedding",
    "tok_embeddings",
  ]);
  const outside = graph.nodes.filter((n) => n.scope === "").map((n) => n.op);
  assertEquals(outside, ["accumulate", "accumulate", "constant"]);
});

Deno.test("a model traced twice gives the same text, and its parameters the states of the graph", () => {
  const model = tinyLlama(), options = { batch: 2, seqLen: 4, dtype: "f32", globalTokens: 8 } as const;
  const graph = traceMicrobatch(model, options);
  assertEquals(print(graph), print(traceMicrobatch(model, options)));
  const states = graph.states.filter((s) => s.kind === "parameter");
  assertEquals(states.map((s) => s.name), [...namedParameters(model).keys()]);
  assertEquals(states.reduce((n, s) => n + numel(s.shape), 0), numParameters(model));
  assert(states.every((s) => s.dtype === "f32"));
});
