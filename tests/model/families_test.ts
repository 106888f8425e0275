import { assertEquals, assertInstanceOf, assertThrows } from "@std/assert";
import { buildModel, DEFAULT_FLAVOR, families, familyNamed, flavorNamed, flavors } from "../../model/families.ts";
import { Llama, llamaConfig } from "../../model/llama.ts";

Deno.test("a model is built of what its checkpoint says, and says the same itself", () => {
  const family = flavorNamed("llama3/debugmodel", { dim: 64, numLayers: 1 }), model = buildModel(family);
  assertInstanceOf(model, Llama);
  assertEquals(model.family, family);
  assertEquals(family, { name: "llama", sizes: llamaConfig("llama3/debugmodel", { dim: 64, numLayers: 1 }) });
});

Deno.test("every flavor of every family is found, the default too, and no two have one name", () => {
  for (const flavor of flavors) assertEquals(familyNamed(flavorNamed(flavor).name).flavors.includes(flavor), true);
  assertEquals(new Set(flavors).size, flavors.length);
  assertEquals(new Set(families.map((f) => f.name)).size, families.length);
  assertEquals(flavors.includes(`${DEFAULT_FLAVOR.name}/${DEFAULT_FLAVOR.flavor}`), true);
});

Deno.test("a name that is not known is refused with those that are", () => {
  assertThrows(() => familyNamed("lama"), RangeError, 'model family "lama": expected one of llama');
  assertThrows(() => buildModel({ ...flavorNamed("llama2/7B"), name: "gpt" }), RangeError, '"gpt"');
  assertThrows(() => flavorNamed("llama3/9B"), RangeError, '"llama3/9B": expected one of llama3/debugmodel, llama3/8B');
});
