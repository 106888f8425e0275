import { assertEquals, assertThrows } from "@std/assert";
import { shard } from "../../../graph/layout.ts";
import { Mesh } from "../../../parallel/mesh.ts";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { tensorsIn } from "../../../train/checkpoint/headers.ts";
import { MANIFEST } from "../../../train/checkpoint/manifest.ts";
import { openCheckpoint } from "../../../train/checkpoint/open.ts";
import { readStates } from "../../../train/checkpoint/read.ts";
import { load, moment, saveAll, saved, Spread, states, weight, whole } from "./fixture.ts";

const mesh = new Mesh({ dp_shard: 4 }, 4), rows = () => new Map([["dp_shard", shard(0)]]);
const fileOf = (kind: string, rank: number) => `${kind}-0000${rank + 1}-of-00004.safetensors`;

Deno.test("files say themselves which pieces they have, and the manifest says it of none", async () => {
  await using at = await saved();
  await saveAll(at.path, new Spread(states, rows, mesh).fill(whole));
  const checkpoint = openCheckpoint(at.path);
  for (const [kind, { name }] of [["model", weight], ["optimizer", moment]] as const) {
    for (let rank = 0; rank < 4; rank++) {
      const file = fileOf(kind, rank), [{ begin, ...piece }] = checkpoint.piecesIn(file);
      assertEquals(piece, { tensor: name, file, starts: [rank, 0], sizes: [1, 3] });
      assertEquals(begin + 12, checkpoint.manifest.files[file].bytes);
    }
  }
  assertEquals(checkpoint.piecesIn("state.json"), []);
  const manifest = JSON.parse(await Deno.readTextFile(`${at.path}/${MANIFEST}`));
  assertEquals(manifest.tensors, {
    [weight.name]: { kind: "parameter", dtype: "f32", shape: [4, 3] },
    [moment.name]: { kind: "moment", dtype: "f32", shape: [4, 3] },
  });
});

Deno.test("a rank that finds all in its own files looks into no others, and another mesh looks until it has all", async () => {
  await using at = await saved();
  const spread = new Spread([weight], rows, mesh);
  await saveAll(at.path, spread.fill(whole));
  const opened = openCheckpoint(at.path);
  const lookedInto = async ({ wanted, memory, rank }: Spread["ranks"][0]) => {
    const files: string[] = [];
    const checkpoint = { ...opened, piecesIn: (file: string) => (files.push(file), opened.piecesIn(file)) };
    await readStates(checkpoint, wanted, { memory, verify: true, rank });
    return files;
  };
  for (const rank of spread.ranks) assertEquals(await lookedInto(rank), [fileOf("model", rank.rank)]);
  const half = new Mesh({ dp_shard: 2 }, 2), other = new Spread([weight], rows, half);
  assertEquals(await lookedInto(other.ranks[0]), [fileOf("model", 0), fileOf("model", 1)]);
});

Deno.test("a header that was changed is refused whether or not bytes are compared, with the tensors that only its file has", async () => {
  await using at = await saved();
  const file = `${at.path}/model.safetensors`,
    bytes = await Deno.readFile(file),
    text = new TextDecoder().decode(bytes);
  for (const place of [0, 9, text.indexOf("w.weight") + 1]) {
    await Deno.writeFile(file, bytes.with(place, bytes[place] ^ 1));
    for (const verify of [true, false]) {
      const error = await load(at.path, new Spread(states), verify).catch((error) => error);
      assertEquals(error instanceof CheckpointError, true, `byte ${place}`);
      assertEquals(
        error.message.split("\n")[0].replace(file, "FILE"),
        'FILE is damaged behind byte 0, in "w.weight": its header is not the one that was written',
      );
    }
  }
});

Deno.test("elements that no file has are told by their tensor", async () => {
  await using at = await saved();
  await saveAll(at.path, new Spread(states, rows, mesh).fill(whole));
  const { path, manifest, piecesIn } = openCheckpoint(at.path), { [fileOf("model", 2)]: _, ...files } = manifest.files;
  const { wanted, memory } = new Spread(states).ranks[0];
  const checkpoint = { path, manifest: { ...manifest, files }, piecesIn };
  const error = await readStates(checkpoint, wanted, { memory, verify: true }).catch((error) => error);
  assertEquals(error.message.split("\n")[0], `Cannot load ${path}: no file has all of "w.weight"`);
});

Deno.test("what lies in a part of a file is known by its name, also where the file cannot say it any more", async () => {
  await using at = await saved();
  const checkpoint = openCheckpoint(at.path), file = "model.safetensors", [{ begin }] = checkpoint.piecesIn(file);
  assertEquals(
    [tensorsIn(checkpoint, file), tensorsIn(checkpoint, "optimizer.safetensors")],
    [["w.weight"], ["moment1/w.weight"]],
  );
  assertEquals(tensorsIn(checkpoint, file, 0, begin), []);
  assertEquals(tensorsIn(checkpoint, file, begin + 47), ["w.weight"]);
  assertEquals(tensorsIn(checkpoint, file, begin + 48), []);
  assertEquals(tensorsIn(checkpoint, "state.json"), []);
  await Deno.remove(`${at.path}/${file}`);
  assertEquals(tensorsIn(checkpoint, file, begin + 48), ["w.weight"]);
  assertThrows(() => openCheckpoint(at.path), CheckpointError, 'model.safetensors is missing, of "w.weight"');
});
