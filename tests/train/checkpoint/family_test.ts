import { assertEquals } from "@std/assert";
import { llamaConfig } from "../../../model/llama.ts";
import { familyOfState } from "../../../train/checkpoint/family.ts";
import { openCheckpoint } from "../../../train/checkpoint/open.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { smallCheckpoint, smallConfig, smallFamily } from "../weights/fixture.ts";

Deno.test("a checkpoint says the family and the sizes of its model; heads without a size of their own share out dim", async () => {
  await using folder = await temporaryFolder();
  assertEquals(familyOfState(openCheckpoint(await smallCheckpoint(`${folder.path}/step-1`))), smallFamily);
  const old = await smallCheckpoint(`${folder.path}/step-2`, smallConfig, {
    llama: { ...llamaConfig("llama2/7B"), headDim: undefined },
  });
  assertEquals(familyOfState(openCheckpoint(old)), { name: "llama", sizes: llamaConfig("llama2/7B") });
});

Deno.test("a model of another kind has no family here", async () => {
  await using folder = await temporaryFolder();
  const path = await smallCheckpoint(`${folder.path}/step-1`, smallConfig, { llama: undefined, other: { dim: 1 } });
  assertEquals(familyOfState(openCheckpoint(path)), undefined);
});
