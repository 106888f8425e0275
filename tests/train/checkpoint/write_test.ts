import { assert, assertEquals } from "@std/assert";
import type { State } from "../../../graph/ir.ts";
import { Mesh } from "../../../parallel/mesh.ts";
import { openCheckpoint } from "../../../train/checkpoint/open.ts";
import { STATE_FILE } from "../../../train/checkpoint/save.ts";
import { Random } from "../../graph/random_graphs.ts";
import { bytesOf, saveAll, Spread, weight } from "./fixture.ts";

Deno.test("every element of a state is written once, and the writing is shared out evenly", async () => {
  const folder = await Deno.makeTempDir();
  const mesh = new Mesh({ dp_replicate: 4, dp_shard: 1 }, 4), path = `${folder}/step-1`;
  const many = Array.from({ length: 8 }, (_, i): State => ({ ...weight, name: `w${i}`, shape: [64, 64] }));
  await saveAll(path, new Spread(many, undefined, mesh).fill(bytesOf(many, new Random(1))));
  const checkpoint = openCheckpoint(path), { manifest } = checkpoint;
  const files = Object.entries(manifest.files).filter(([f]) => f !== STATE_FILE);
  assertEquals(files.map(([name]) => name).sort(), [1, 2, 3, 4].map((n) => `model-0000${n}-of-00004.safetensors`));
  const bytes = files.map(([, f]) => f.bytes);
  assert(Math.max(...bytes) - Math.min(...bytes) < 200, `${bytes}`);
  const pieces = files.flatMap(([name]) => checkpoint.piecesIn(name));
  assertEquals(pieces.map((p) => p.tensor).sort(), many.map((s) => s.name));
  await Deno.remove(folder, { recursive: true });
});
