import { assertEquals, assertMatch, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import type { State } from "../../../graph/ir.ts";
import { shard } from "../../../graph/layout.ts";
import { Mesh } from "../../../parallel/mesh.ts";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { damages, differences, listText, readTensor, showLines } from "../../../train/checkpoint/inspect.ts";
import { openFolder } from "../../../train/checkpoint/load.ts";
import { withHeaders } from "../../../train/checkpoint/headers.ts";
import { MANIFEST } from "../../../train/checkpoint/manifest.ts";
import { openCheckpoint } from "../../../train/checkpoint/open.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { Random } from "../../graph/random_graphs.ts";
import { bytesOf, moment, saveAll, saved, Spread, states, weight, whole } from "./fixture.ts";

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
  await Deno.mkdir(`${at.folder}/step-21.tmp`);
  const lines = listText(`${at.folder}/`).split("\n");
  assertMatch(lines[0], /\w\/step-12 +step 12, parameters alone, \d+ B$/);
  assertMatch(lines[1], /\w\/step-1 +step 1, whole run, [\d.]+ (B|KiB)$/);
  assertStringIncludes(lines[2], "step-20 is no checkpoint");
  assertStringIncludes(lines[3], "step-21.tmp is no checkpoint: its save is under way, or was cut off");
});

Deno.test("a folder without checkpoints says where some are, and one that is none of checkpoints is refused", async () => {
  await using at = await saved();
  const refused = (path: string, what: string) => assertThrows(() => listText(path), CheckpointError, what);
  refused(`${at.folder}/nowhere`, "there is no such folder");
  refused(at.path, "it is itself a checkpoint");
  await using run = await temporaryFolder();
  assertEquals(listText(run.path), `no complete checkpoint in ${run.path}`);
  await Deno.rename(at.folder, `${run.path}/checkpoint`);
  assertStringIncludes(listText(run.path), `; there are some in ${run.path}/checkpoint`);
  await Deno.rename(`${run.path}/checkpoint`, at.folder);
});

/** What a checkpoint shows. */
const shown = async (path: string) => (await Array.fromAsync(showLines(openFolder(path)))).join("\n");

Deno.test("a checkpoint shows its files, and its tensors with their norms", async () => {
  await using at = await saved();
  await saveAll(at.path, new Spread(states).fill(values));
  const text = await shown(at.path);
  assertStringIncludes(text, "step 1, whole run, 12 parameters\nFiles\n");
  assertMatch(text, /w\.weight +f32\[4,3\], 1 piece, norm 1\.73205\n/);
  assertMatch(text, /moment1\/w\.weight +f32\[4,3\], 1 piece, norm 5\.19615$/);
});

Deno.test("a folder of transformers is shown under our names, and cannot be verified, as it has no hashes", async () => {
  const path = new URL("../../goldens/hf/plain", import.meta.url).pathname, text = await shown(`${path}/`);
  assertStringIncludes(text, `${path}: weights as transformers saves them, 5,456 parameters\nFiles\n`);
  assertMatch(text, /\n {2}layers\.0\.attention\.wv\.weight +f32\[16,16\], 1 piece, norm [\d.]+\n/);
  await assertRejects(() => damages(openFolder(path)), CheckpointError, "nobody has made hashes");
});

Deno.test("every byte of every file is compared", async () => {
  await using at = await saved();
  assertEquals(await damages(openCheckpoint(at.path)), []);
  const has: Record<string, string> = {
    "model.safetensors": ', where it has "w.weight"',
    "optimizer.safetensors": ', where it has "moment1/w.weight"',
    "state.json": "",
  };
  const names = [...Deno.readDirSync(at.path)].map((e) => e.name).filter((n) => n !== MANIFEST);
  assertEquals(names.sort(), Object.keys(has));
  for (const name of names) {
    const file = `${at.path}/${name}`, bytes = await Deno.readFile(file);
    for (const at of [0, bytes.length - 1]) {
      bytes[at] ^= 4;
      await Deno.writeFile(file, bytes);
      bytes[at] ^= 4;
      const found = await damages(openCheckpoint(file.slice(0, file.lastIndexOf("/"))));
      assertEquals(found, [`${name} is damaged in bytes 0 to ${bytes.length - 1}${has[name]}`]);
    }
    await Deno.writeFile(file, bytes);
  }
  assertEquals(await damages(openCheckpoint(at.path)), []);
});

Deno.test("large files are compared chunk by chunk, whatever is done first, and a chunk without a hash is damaged", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/step-1`, state: State = { ...weight, shape: [9 * 2 ** 20 / 4 * 3] }; // 27 MiB
  await saveAll(path, new Spread([state, moment]).fill(new Map([...whole, [weight.name, new Uint8Array(27 << 20)]])));
  const progress: number[] = [],
    checkpoint = openCheckpoint(path),
    [file, { bytes }] = Object.entries(
      checkpoint.manifest.files,
    )[0];
  const all = Object.values(checkpoint.manifest.files).reduce((sum, f) => sum + f.bytes, 0);
  const done = (now: number, of: number) => progress.push(now) && assertEquals(of, all);
  assertEquals(await damages(checkpoint, done), []);
  assertEquals([progress.length, progress.at(-1)], [4 + 1 + 1, all]);
  assertEquals(progress, progress.toSorted((a, b) => a - b));
  using open = await Deno.open(`${path}/${file}`, { write: true });
  for (const at of [20 << 20, 26 << 20]) {
    await open.seek(at, Deno.SeekMode.Start);
    await open.write(Uint8Array.of(1));
  }
  const [from, to] = [16 << 20, 24 << 20], where = ', where it has "w.weight"';
  assertEquals(await damages(checkpoint), [
    `${file} is damaged in bytes ${from} to ${to - 1}, and in 1 more chunk of 8.0 MiB${where}`,
  ]);
  for (const at of [20 << 20, 26 << 20]) {
    await open.seek(at, Deno.SeekMode.Start);
    await open.write(Uint8Array.of(0));
  }
  const { files } = checkpoint.manifest, short = { ...files[file], sha256: files[file].sha256.slice(0, 3) };
  const manifest = { ...checkpoint.manifest, files: { ...files, [file]: short } };
  assertEquals(await damages(withHeaders(path, manifest)), [
    `${file} is damaged in bytes ${24 << 20} to ${bytes - 1}${where}`,
  ]);
});

Deno.test("checkpoints that different meshes have saved are the same where their values are", async () => {
  await using at = await saved();
  const other = `${at.folder}/step-2`, mesh = new Mesh({ dp_shard: 2, tp: 3 }, 6);
  const layout = new Map([["tp", shard(1)], ["dp_shard", shard(0)]]);
  await saveAll(other, new Spread(states, () => layout, mesh).fill(whole), 2);
  assertEquals(await differences(openCheckpoint(at.path), openCheckpoint(other)), []);
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
