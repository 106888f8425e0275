import { assert, assertEquals, assertThrows } from "@std/assert";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { encodeManifest, MANIFEST, namesText } from "../../../train/checkpoint/manifest.ts";
import { openCheckpoint } from "../../../train/checkpoint/open.ts";
import { STATE_FILE } from "../../../train/checkpoint/save.ts";
import { saved } from "./fixture.ts";

Deno.test("a checkpoint has a manifest with the length and hashes of every file", async () => {
  await using at = await saved();
  const names = [...Deno.readDirSync(at.path)].map((e) => e.name).sort();
  assertEquals(names, [MANIFEST, "model.safetensors", "optimizer.safetensors", STATE_FILE]);
  const { manifest } = openCheckpoint(at.path);
  assertEquals(Object.keys(manifest.files).sort(), ["model.safetensors", "optimizer.safetensors", STATE_FILE]);
  assertEquals(manifest.tensors["w.weight"].shape, [4, 3]);
  const sum = await new Deno.Command("sha256sum", { args: [`${at.path}/model.safetensors`] }).output();
  assertEquals(new TextDecoder().decode(sum.stdout).split(" ")[0], manifest.files["model.safetensors"].sha256[0]);
});

Deno.test("a manifest that is none is refused with what is wrong", async () => {
  await using at = await saved();
  await Deno.writeTextFile(`${at.path}/${MANIFEST}`, '{"version": 1}');
  assertThrows(() => openCheckpoint(at.path), CheckpointError, "its version is 1");
  await Deno.writeTextFile(`${at.path}/${MANIFEST}`, "{");
  assertThrows(() => openCheckpoint(at.path), CheckpointError, "is no checkpoint");
});

Deno.test("a manifest with a hash of its own is refused when any of its bytes has changed", async () => {
  await using at = await saved();
  const path = `${at.path}/${MANIFEST}`, { manifest } = openCheckpoint(at.path);
  const bytes = new TextEncoder().encode(encodeManifest(manifest)), opened = () => openCheckpoint(at.path).manifest;
  await Deno.writeFile(path, bytes);
  assertEquals({ ...opened(), sha256: undefined }, { ...manifest, sha256: undefined });
  let refused = 0;
  for (let at = 0; at < bytes.length; at++) {
    bytes[at] ^= 1;
    Deno.writeFileSync(path, bytes);
    bytes[at] ^= 1;
    try {
      const { files, tensors, step, content } = opened();
      assertEquals([files, tensors, step, content], [manifest.files, manifest.tensors, 1, "full"], `byte ${at}`);
    } catch (error) {
      assert(error instanceof CheckpointError, `byte ${at}: ${error}`);
      refused++;
    }
  }
  // Of the name of the hash itself, and the end of the line, nothing depends.
  assert(refused >= bytes.length - 14, `${refused} of ${bytes.length}`);
  bytes[20] ^= 1;
  await Deno.writeFile(path, bytes);
  assertThrows(opened, CheckpointError, `${MANIFEST}: it is damaged`);
});

Deno.test("of many names the first are told", () => {
  assertEquals(["", "a", "abc", "abcd"].map((names) => namesText([...names], " of ")), [
    "",
    ' of "a"',
    ' of "a", "b" and 1 more tensor',
    ' of "a", "b" and 2 more tensors',
  ]);
});
