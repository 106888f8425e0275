import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { shard } from "../../../graph/layout.ts";
import { Mesh } from "../../../parallel/mesh.ts";
import { damages, differences, listText, readTensor, showText } from "../../../train/checkpoint/inspect.ts";
import { findCheckpoints, MANIFEST, openCheckpoint } from "../../../train/checkpoint/manifest.ts";
import { Random } from "../../graph/random_graphs.ts";
import { bytesOf, saveAll, saved, Spread, states, weight, whole } from "./fixture.ts";

/** Values that are no odd numbers. */
const values = new Map(states.map((s, k) => [s.name, new Uint8Array(new Float32Array(12).fill(k + 0.5).buffer)]));

Deno.test("a tensor is read whole, from whatever pieces", async () => {
  await using at = await saved();
  const mesh = new Mesh({ dp_shard: 2 }, 2);
  await saveAll(at.path, new Spread(states, () => new Map([["dp_shard", shard(0)]]), mesh).fill(whole));
  const read = await readTensor(openCheckpoint(at.path), weight.name);
  assertEquals(new Uint8Array(read.buffer), whole.get(weight.name));
});

Deno.test("checkpoints are listed, the latest first, and what is none with the reason", async () => {
  await using at = await saved();
  await saveAll(`${at.folder}/step-12`, new Spread([weight]).fill(whole), 12, "model");
  await Deno.mkdir(`${at.folder}/step-20`);
  const lines = listText(findCheckpoints(at.folder)).split("\n");
  assertMatch(lines[0], /step-12 +step 12, parameters alone, \d+ B$/);
  assertMatch(lines[1], /step-1 +step 1, whole run, [\d.]+ (B|KiB)$/);
  assertStringIncludes(lines[2], "step-20 is no checkpoint");
  assertEquals(listText({ complete: [], broken: [] }), "no complete checkpoint");
});

Deno.test("a checkpoint shows its files, and its tensors with their norms", async () => {
  await using at = await saved();
  await saveAll(at.path, new Spread(states).fill(values));
  const text = await showText(openCheckpoint(at.path));
  assertStringIncludes(text, "step 1, a whole run, 12 parameters\nFiles\n");
  assertMatch(text, /w\.weight +f32\[4,3\], 1 piece, norm 1\.73205\n/);
  assertMatch(text, /moment1\/w\.weight +f32\[4,3\], 1 piece, norm 5\.19615$/);
});

Deno.test("every byte of every file is compared", async () => {
  await using at = await saved();
  assertEquals(damages(openCheckpoint(at.path)), []);
  for (const name of [...Deno.readDirSync(at.path)].map((e) => e.name).filter((n) => n !== MANIFEST)) {
    const file = `${at.path}/${name}`, bytes = await Deno.readFile(file);
    for (const at of [0, bytes.length - 1]) {
      bytes[at] ^= 4;
      await Deno.writeFile(file, bytes);
      bytes[at] ^= 4;
      const found = damages(openCheckpoint(file.slice(0, file.lastIndexOf("/"))));
      assertEquals(found, [`${name} is damaged in bytes 0 to ${bytes.length - 1}`]);
    }
    await Deno.writeFile(file, bytes);
  }
  assertEquals(damages(openCheckpoint(at.path)), []);
});

Deno.test("two checkpoints differ in values, types, shapes, and in what only one of them has", async () => {
  await using at = await saved();
  const other = `${at.folder}/step-2`, diff = () => differences(openCheckpoint(at.path), openCheckpoint(other));
  await saveAll(other, new Spread(states).fill(whole), 2);
  assertEquals(await diff(), []);
  await saveAll(at.path, new Spread(states).fill(values));
  const changed = new Map([...values, [
    weight.name,
    new Uint8Array(new Float32Array(12).fill(0.5).fill(2, 3, 5).buffer),
  ]]);
  await saveAll(other, new Spread(states).fill(changed), 2);
  assertEquals(await diff(), ["w.weight: 2 of 12 values differ, by 1.50 at most"]);
  await saveAll(other, new Spread([{ ...weight, shape: [3, 4] }]).fill(bytesOf([weight], new Random(1))), 2, "model");
  assertEquals(await diff(), [
    "w.weight is f32[4,3] and f32[3,4]",
    `moment1/w.weight is only in ${at.path}`,
  ]);
  const wide = new Map([[weight.name, new Uint8Array(new Float64Array(12).fill(0.5).buffer)]]);
  await saveAll(other, new Spread([{ ...weight, dtype: "f64" }]).fill(wide), 2, "model");
  assertEquals((await diff())[0], "w.weight: f32[4,3] and f64[4,3], the same values");
});
