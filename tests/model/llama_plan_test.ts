import { assertEquals } from "@std/assert";
import { llama } from "../../model/llama.ts";
import { llamaPlan } from "../../model/llama_plan.ts";
import { namedParameters } from "../../model/module.ts";

/** Parameters of one layer, and of none. */
const names = [...namedParameters(llama("debug", { numLayers: 1 })).keys()].map((n) =>
  n.replace("layers.0", "layers.*")
);

Deno.test("every parameter of a Llama but the norms has one role", () => {
  const { parameters } = llamaPlan(llama("debug").config), patterns = parameters.map((p) => p.pattern);
  assertEquals(names.filter((name) => !patterns.includes(name)), [
    "layers.*.attention_norm.weight",
    "layers.*.ffn_norm.weight",
    "norm.weight",
  ]);
  assertEquals(patterns.filter((pattern) => !names.includes(pattern)), []);
  assertEquals(new Set(patterns).size, patterns.length);
});

Deno.test("what leads into a block's halves is cut by columns, what leads out by rows", () => {
  const { parameters } = llamaPlan(llama("8B").config);
  const of = (role: string) => parameters.filter((p) => p.role === role).map((p) => p.pattern.split(".").at(-2));
  assertEquals(of("column"), ["wq", "wk", "wv", "w1", "w3", "output"]);
  assertEquals(of("row"), ["wo", "w2"]);
  assertEquals(of("table"), ["tok_embeddings"]);
});

Deno.test("attention is cut by heads, those of keys and values being fewer", () => {
  const { parameters } = llamaPlan(llama("8B").config);
  const parts = (name: string) => parameters.find((p) => p.pattern.includes(name))!.parts;
  assertEquals(["wq", "wk", "wv", "wo", "w1", "output"].map(parts), [32, 8, 8, 32, 14336, 128256]);
});
