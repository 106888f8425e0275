import { assertEquals, assertStringIncludes } from "@std/assert";
import { MANIFEST } from "../../../train/checkpoint/manifest.ts";
import { findCheckpoints } from "../../../train/checkpoint/open.ts";
import { saveAll, saved, Spread, states, whole } from "./fixture.ts";

Deno.test("a folder without a manifest is no checkpoint, nor one whose files are missing or too short", async () => {
  await using at = await saved();
  await saveAll(`${at.folder}/step-9`, new Spread(states).fill(whole), 9);
  await saveAll(`${at.folder}/step-8`, new Spread(states).fill(whole), 8);
  await saveAll(`${at.folder}/step-7`, new Spread(states).fill(whole), 7);
  await Deno.remove(`${at.folder}/step-9/${MANIFEST}`);
  await Deno.truncate(`${at.folder}/step-8/optimizer.safetensors`, 100);
  await Deno.remove(`${at.folder}/step-7/model.safetensors`);
  const { complete, broken } = findCheckpoints(at.folder);
  assertEquals(complete.map((c) => c.path), [at.path]);
  assertEquals(broken.map((b) => b.path.split("/").at(-1)).sort(), ["step-7", "step-8", "step-9"]);
  assertStringIncludes(
    broken.find((b) => b.path.endsWith("8"))!.reason.message,
    'optimizer.safetensors has 100 bytes, of "moment1/w.weight"',
  );
  assertStringIncludes(
    broken.find((b) => b.path.endsWith("7"))!.reason.message,
    'model.safetensors is missing, of "w.weight"',
  );
  assertEquals(findCheckpoints(`${at.folder}/nowhere`).complete, []);
});
