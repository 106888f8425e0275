import { assert, assertEquals, assertThrows } from "@std/assert";
import { arr } from "../../graph/array.ts";
import { interpret, type Memory } from "../../graph/interpret.ts";
import { simplify } from "../../graph/passes/simplify.ts";
import { verify } from "../../graph/verify.ts";
import { llama } from "../../model/llama.ts";
import { float8Layers, float8Lines, float8ProductsOf } from "../../train/float8.ts";
import { precision } from "../graph/passes/on_cpu.ts";
import { testFloat8Parity } from "./float8_parity.ts";

const tolerances = { tensorwise: 1e-5, rowwise: 1e-5, rowwise_with_gw_hp: 1e-5, mxfp8: 1e-5 };

testFloat8Parity("the interpreter", tolerances, (graph, numbers, states) => {
  const ready = verify(simplify(precision(graph, numbers)));
  const shapes = new Map(graph.states.map((s) => [s.name, s.shape]));
  const memory: Memory = new Map([...states].map(([name, data]) => [name, arr(shapes.get(name)!, data)]));
  return {
    run: (inputs) => interpret(ready, { inputs, memory }),
    read: (name) => memory.get(name)!.data,
    write: (name, data) => void memory.set(name, arr(shapes.get(name)!, data)),
    close: () => {},
  };
});

Deno.test("layers are converted whose sizes are multiples of 16 and whose path contains no text of the filter", () => {
  const model = llama("debug", { dim: 64, numLayers: 2, numHeads: 4, numKvHeads: 2, ffnHiddenDim: 176, vocabSize: 99 });
  const layers = float8Layers(model), converted = layers.filter((l) => l.why === undefined);
  assertEquals([layers.length, converted.length], [15, 14]);
  assertEquals(layers.at(-1)!.why, "its sizes are no multiples of 16");
  assertEquals(float8ProductsOf(model).weights.has("layers.1.feed_forward.w2.weight"), true);
  const some = float8Layers(model, { filter: ["attention.w", "output"] }).filter((l) => l.why === undefined);
  assertEquals(some.map((l) => l.name.replace(/.*\./, "")), ["w1", "w2", "w3", "w1", "w2", "w3"]);
  assertEquals(float8Lines(model, { filter: ["wk", "wv"] }), [
    "10 of 15 linear layers: layers.*.attention.wq, layers.*.attention.wo, layers.*.feed_forward.w1, " +
    "layers.*.feed_forward.w2, layers.*.feed_forward.w3",
    "not layers.*.attention.wk, since its name contains wk",
    "not layers.*.attention.wv, since its name contains wv",
    "not output, since its sizes are no multiples of 16",
  ]);
});

Deno.test("auto_filter_small_kn leaves layers alone that torchao measured as slower", () => {
  const model = llama("8B"),
    small = (recipe: "tensorwise" | "rowwise") =>
      float8Layers(model, { recipe, filter: ["auto_filter_small_kn", "output"] })
        .filter((l) => l.name.startsWith("layers.0.") && l.why === "it is too small to gain").map((l) =>
          l.name.slice(9)
        );
  assertEquals(small("tensorwise"), ["attention.wk", "attention.wv"]);
  assertEquals(small("rowwise"), ["attention.wk", "attention.wv"]);
  assert(float8Layers(model, { filter: [] }).every((l) => l.why === undefined));
});

Deno.test("a model of which nothing would be float8 is refused, layer by layer, and a tied output layer says why", () => {
  const model = llama("debug", {
    dim: 32,
    numLayers: 1,
    numHeads: 2,
    numKvHeads: 2,
    vocabSize: 64,
    tiedEmbeddings: true,
  });
  const error = assertThrows(
    () => float8ProductsOf(model, { filter: ["layers"] }),
    RangeError,
    "Cannot multiply in float8",
  );
  assert(error.message.includes("output [64,32]: its weight is tok_embeddings.weight"), error.message);
  assert(error.message.includes("layers.0.attention.wq [32,32]: its name contains layers"), error.message);
});
