import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { type DType, dtypeBytes, numel, type State } from "../../../graph/ir.ts";
import { type Layout, shard } from "../../../graph/layout.ts";
import { Mesh } from "../../../parallel/mesh.ts";
import { openCheckpoint } from "../../../train/checkpoint/open.ts";
import { checkpointPlanText, planCheckpoints } from "../../../train/checkpoint/plan.ts";
import { saveCheckpoint } from "../../../train/checkpoint/save.ts";
import { Staging } from "../../../train/checkpoint/staging.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { forSeeds, Random } from "../../graph/random_graphs.ts";
import { randomMesh } from "../../parallel/random_layouts.ts";
import { layouts, meetings, randomStates, Spread } from "./fixture.ts";

const GiB = 2 ** 30;

/** Bytes of tensors that each rank has written, and how many files there are. */
function written(path: string, mesh: Mesh) {
  const bytes = new Array<number>(mesh.size).fill(0), checkpoint = openCheckpoint(path);
  const { tensors, files } = checkpoint.manifest;
  for (const { file, tensor, sizes } of Object.keys(files).flatMap((file) => checkpoint.piecesIn(file))) {
    const rank = mesh.size === 1 ? 0 : Number(/-(\d+)-of-/.exec(file)![1]) - 1;
    bytes[rank] += numel(sizes) * dtypeBytes[tensors[tensor].dtype as DType];
  }
  const least = Math.min(...bytes), most = Math.max(...bytes), sum = bytes.reduce((a, b) => a + b);
  return { bytes: sum, files: Object.keys(files).length + 1, leastOfRank: least, mostOfRank: most };
}

Deno.test("what is planned of the ranks of any mesh is what they write", async () => {
  await using folder = await temporaryFolder();
  const cases: { states: State[]; layoutOf: (state: State) => Layout; mesh: Mesh; random: Random }[] = [];
  forSeeds(25, (seed) => {
    const random = new Random(seed), states = randomStates(random), mesh = randomMesh(random);
    cases.push({ states, layoutOf: layouts(states, mesh, random), mesh, random });
  });
  for (const [i, { states, layoutOf, mesh, random }] of cases.entries()) {
    const sums = { name: "loss_sum", kind: "sum", dtype: "f64", shape: [5] } as const;
    const keys = { name: "keys", kind: "cache", dtype: "f32", shape: [64] } as const;
    const exportDtype = random.oneIn(2) ? "bf16" as const : undefined,
      options = { layoutOf, mesh, exportDtype, diskSpeed: 10 };
    const plan = planCheckpoints({ ...options, states: [...states, sums, keys] });
    const parameters = states.filter((s) => s.kind === "parameter");
    for (const [content, own] of [["full", states], ["model", parameters]] as const) {
      if (own.length === 0) continue;
      const path = `${folder.path}/step-${i}-${content}`, { seconds, ...planned } = plan[content];
      const { ranks } = new Spread(own, layoutOf, mesh), groups = meetings(ranks.length);
      const how = { step: 1, content, state: {}, dtype: content === "model" ? exportDtype : undefined };
      await Promise.all(ranks.map(async (rank, r) => {
        const options = { ...how, group: groups[r], staging: new Staging() };
        await (await saveCheckpoint(path, rank, options)).done;
      }));
      assertEquals(planned, written(path, mesh));
      assertEquals(seconds, planned.bytes / 10);
    }
  }
});

/** Parameters and moments of a Llama of 405 billion parameters, and how tensor and data parallelism cut them. */
function largeLlama(): { states: State[]; layoutOf: (state: State) => Layout } {
  const [dim, hidden, kv, vocabulary] = [16384, 53248, 1024, 128256], states: State[] = [];
  const cut = new Map<string, number>();
  const add = (name: string, shape: number[], dim?: number) => {
    for (const prefix of ["", "moment1/", "moment2/"]) {
      states.push({ name: prefix + name, kind: prefix === "" ? "parameter" : "moment", dtype: "f32", shape });
      if (dim !== undefined) cut.set(prefix + name, dim);
    }
  };
  for (const name of ["tok_embeddings", "output"]) add(name, [vocabulary, dim], 0);
  for (let layer = 0; layer < 126; layer++) {
    for (const [name, rows] of Object.entries({ wq: dim, wk: kv, wv: kv })) add(`${layer}.${name}`, [rows, dim], 0);
    for (const name of ["w1", "w3"]) add(`${layer}.${name}`, [hidden, dim], 0);
    add(`${layer}.wo`, [dim, dim], 1);
    add(`${layer}.w2`, [dim, hidden], 1);
    for (const name of ["attention_norm", "ffn_norm"]) add(`${layer}.${name}`, [dim]);
  }
  const layoutOf = ({ name }: State): Layout =>
    new Map([
      ...(cut.has(name) ? [["tp", shard(cut.get(name)!)] as const] : []),
      ["dp_shard", shard(0, { padded: true })] as const,
    ]);
  return { states, layoutOf };
}

Deno.test("checkpoints of 405 billion parameters on 4,096 ranks are planned in a moment", () => {
  const { states, layoutOf } = largeLlama(), mesh = new Mesh({ dp_shard: 64, dp_replicate: 8, tp: 8 }, 4096);
  const begun = performance.now(), { full, model } = planCheckpoints({ states, layoutOf, mesh, diskSpeed: 1e11 });
  const seconds = (performance.now() - begun) / 1000;
  assert(seconds < 10, `it took ${seconds} s`);
  assertEquals(full.bytes, 3 * model.bytes);
  assertEquals(model.bytes, states.filter((s) => s.kind === "parameter").reduce((n, s) => n + 4 * numel(s.shape), 0));
  assertEquals([full.files, model.files], [2 + 2 * 4096, 2 + 4096]);
  assertEquals(full.seconds, full.bytes / 1e11);
  assert(full.mostOfRank < 1.02 * full.leastOfRank, `${full.leastOfRank} to ${full.mostOfRank} by each rank`);
});

Deno.test("a plan says what a save takes of the disk, of each rank, and how long it lasts if a speed is given", () => {
  const state: State = { name: "w", kind: "parameter", dtype: "f32", shape: [3, 2 ** 26] };
  const states = [state, { ...state, name: "moment1/w", kind: "moment" } as const];
  const one = { states, layoutOf: (): Layout => new Map(), mesh: new Mesh({}, 1) };
  assertEquals(
    checkpointPlanText(planCheckpoints(one)),
    `Checkpoint (bytes of tensors; no time is known: --disk-speed 2GB/s tells how long a save takes)
  all that a run goes on from    1.5 GiB in 4 files
  parameters alone             768.0 MiB in 3 files`,
  );
  const mesh = new Mesh({ dp_shard: 2 }, 2), layout: Layout = new Map([["dp_shard", shard(0, { padded: true })]]);
  const text = checkpointPlanText(planCheckpoints({ ...one, mesh, layoutOf: () => layout, diskSpeed: GiB / 100 }));
  assertStringIncludes(text, "; at 10.2 MiB/s into checkpoint.folder by all ranks together)\n");
  assertStringIncludes(text, " 1.5 GiB in 6 files, 512.0 MiB to 1.0 GiB by each rank, 3 min at least\n");
  assertStringIncludes(text, " 768.0 MiB in 4 files, 256.0 MiB to 512.0 MiB by each rank, 75 s at least");
  const even = planCheckpoints({ ...one, mesh: new Mesh({ tp: 3 }, 3), layoutOf: () => new Map([["tp", shard(0)]]) });
  assertStringIncludes(checkpointPlanText(even), ", 512.0 MiB by each rank\n");
});
