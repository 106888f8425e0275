import { assertEquals, assertThrows } from "@std/assert";
import { partial, type Placement, shard } from "../../graph/layout.ts";
import {
  AXES,
  DEGREE_KEYS,
  degreesText,
  layoutTextOn,
  Mesh,
  type MeshOptions,
  meshProblems,
  stepProblems,
} from "../../parallel/mesh.ts";

const sixteen = new Mesh({ pp: 2, cp: 2, tp: 2 }, 16);

Deno.test("the sharding axis takes the ranks that the others leave", () => {
  assertEquals(sixteen.degrees, { pp: 2, dp_replicate: 1, dp_shard: 2, cp: 2, tp: 2, ep: 1 });
  assertEquals(new Mesh({}, 6).degrees.dp_shard, 6);
  assertEquals(new Mesh({ dp_shard: -1, tp: 3 }, 6).degrees.dp_shard, 2);
});

Deno.test("ranks and coordinates belong together, tp varying fastest", () => {
  assertEquals(sixteen.coordinates(11), { pp: 1, dp_replicate: 0, dp_shard: 0, cp: 1, tp: 1 });
  for (let rank = 0; rank < 16; rank++) assertEquals(sixteen.rankAt(sixteen.coordinates(rank)), rank);
});

Deno.test("a group is the ranks that differ on its axes alone, the first axis outermost", () => {
  const groups = (rank: number) =>
    [["tp"], ["cp"], ["dp_shard", "cp"], ["pp"]].map((axes) => sixteen.group(rank, axes));
  assertEquals(groups(0), [[0, 1], [0, 2], [0, 2, 4, 6], [0, 8]]);
  assertEquals(groups(13), [[12, 13], [13, 15], [9, 11, 13, 15], [5, 13]]);
  assertEquals(sixteen.group(0, ["cp", "dp_shard"]), [0, 4, 2, 6]);
  assertEquals(sixteen.group(5, []), [5]);
});

Deno.test("every rank of a group names the same group", () => {
  for (const axes of [["tp"], ["dp_shard", "cp"], [...AXES]]) {
    for (let rank = 0; rank < 16; rank++) {
      const group = sixteen.group(rank, axes);
      for (const other of group) assertEquals(sixteen.group(other, axes), group);
    }
  }
});

Deno.test("an axis that lends some of its ranks is the product of two factors, and the innermost ranks are lent", () => {
  const factors = (options: MeshOptions, size: number) => {
    const mesh = new Mesh(options, size), more = Object.entries(mesh.factors).filter(([, degree]) => degree > 1);
    return [Object.fromEntries(more), mesh.factorsOf("ep"), mesh.factorsOf("dp_shard")];
  };
  const [outer, inner] = ["dp_shard_mod_ep", "dp_shard_in_ep"];
  assertEquals(factors({ ep: 2 }, 8), [{ [outer]: 4, [inner]: 2 }, [inner], [outer, inner]]);
  assertEquals(factors({ cp: 2, ep: 4 }, 8), [{ [outer]: 2, [inner]: 2, cp: 2 }, [inner, "cp"], [outer, inner]]);
  // Axes that are lent as a whole, or not at all, are their own factors.
  assertEquals(factors({ cp: 2, ep: 8, tp: 2 }, 16), [{ dp_shard: 4, cp: 2, tp: 2 }, ["dp_shard", "cp"], ["dp_shard"]]);
  assertEquals(factors({ cp: 2, ep: 2 }, 8), [{ dp_shard: 4, cp: 2 }, ["cp"], ["dp_shard"]]);
  assertEquals(factors({ cp: 4, ep: 2 }, 8), [{ dp_shard: 2, cp_mod_ep: 2, cp_in_ep: 2 }, ["cp_in_ep"], ["dp_shard"]]);
  assertEquals(factors({ cp: 2 }, 8), [{ dp_shard: 4, cp: 2 }, [], ["dp_shard"]]);
});

Deno.test("factors leave ranks where they are on every axis", () => {
  const [plain, lent] = [new Mesh({ cp: 2, tp: 2 }, 16), new Mesh({ cp: 2, tp: 2, ep: 4 }, 16)];
  for (let rank = 0; rank < 16; rank++) {
    assertEquals(AXES.map((axis) => lent.placeOn(axis, rank)), AXES.map((axis) => plain.coordinates(rank)[axis]));
    assertEquals(lent.rankAt(lent.coordinates(rank)), rank);
    assertEquals(lent.group(rank, lent.factorsOf("dp_shard")), plain.group(rank, ["dp_shard"]));
  }
  assertEquals([0, 2, 4, 6, 8].map((rank) => lent.placeOn("ep", rank)), [0, 1, 2, 3, 0]);
  assertEquals(lent.group(9, lent.factorsOf("ep")), [9, 11, 13, 15]);
});

Deno.test("people are told axes, not factors", () => {
  const mesh = new Mesh({ dp_replicate: 2, cp: 2, ep: 4 }, 16), [outer, inner] = ["dp_shard_mod_ep", "dp_shard_in_ep"];
  assertEquals(mesh.named(["dp_replicate", outer, inner, "cp"]), ["dp_replicate", "dp_shard", "cp"]);
  assertEquals([mesh.named([inner, "cp"]), mesh.named([outer]), mesh.named([])], [["ep"], [outer], []]);
  const text = (layout: Record<string, Placement>) => layoutTextOn(mesh, new Map(Object.entries(layout)));
  assertEquals(text({ [outer]: shard(0), [inner]: shard(0), cp: shard(1) }), "dp_shard: Shard(0), cp: Shard(1)");
  assertEquals(text({ [inner]: shard(0), cp: shard(0), [outer]: shard(1) }), `ep: Shard(0), ${outer}: Shard(1)`);
  const sum = partial();
  assertEquals(text({ [inner]: sum, cp: shard(0), [outer]: sum }), "cp: Shard(0), dp_shard: Partial(sum)");
  assertEquals(degreesText(mesh.degrees), "dp_replicate 2 x dp_shard 4 x cp 2 (ep 4)");
});

Deno.test("a degree of experts that the ranks it shares cannot make is refused with those that they can", () => {
  assertEquals(meshProblems({ dp_shard: 3, cp: 2, tp: 2, ep: 3 }, 12), [
    "parallelism.expert_parallel_degree is 3: expected 1 or 2 or 6, since it shares the ranks of " +
    "parallelism.data_parallel_shard_degree = 3 and parallelism.context_parallel_degree = 2; change one of them",
  ]);
  assertEquals(meshProblems({ ep: 0 }, 1), [`${DEGREE_KEYS.ep} is 0: expected a whole number from 1`]);
  assertEquals(meshProblems({ tp: 2, ep: 2 }, 2).length, 1);
});

Deno.test("a degree that is no whole number from 1 is refused by its key", () => {
  assertEquals(meshProblems({ tp: 0 }, 4), [`${DEGREE_KEYS.tp} is 0: expected a whole number from 1`]);
  assertEquals(meshProblems({ dp_shard: 0, cp: 1.5, pp: -1 }, 4), [
    "parallelism.pipeline_parallel_degree is -1: expected a whole number from 1",
    "parallelism.data_parallel_shard_degree is 0: expected a whole number from 1, or -1 for what is left",
    "parallelism.context_parallel_degree is 1.5: expected a whole number from 1",
  ]);
});

Deno.test("degrees whose product is not the number of ranks are refused, with every degree and the way out", () => {
  const message = (options: MeshOptions, size: number) =>
    assertThrows(() => new Mesh(options, size), RangeError).message;
  assertEquals(
    message({ dp_shard: 2, tp: 3 }, 8),
    "The degrees make 6 ranks, but there are 8: expected the product of parallelism.pipeline_parallel_degree = 1, " +
      "parallelism.data_parallel_replicate_degree = 1, parallelism.data_parallel_shard_degree = 2, " +
      "parallelism.context_parallel_degree = 1, parallelism.tensor_parallel_degree = 3 to be the number of ranks; change " +
      "a degree (parallelism.data_parallel_shard_degree = -1 takes what is left) or start 6 ranks (--nproc 6)",
  );
  // What is left is rounded down, and never nothing.
  assertEquals(message({ tp: 3 }, 8).startsWith("The degrees make 6 ranks, but there are 8"), true);
  assertEquals(message({ tp: 16 }, 8).startsWith("The degrees make 16 ranks, but there are 8"), true);
});

Deno.test("sizes of a step that the mesh does not divide are refused by their keys", () => {
  const mesh = new Mesh({ cp: 2, tp: 2, dp_shard: 2 }, 8),
    fine = { seqLen: 16, localBatchSize: 3, globalBatchSize: 12 };
  assertEquals(stepProblems(mesh, fine), []);
  assertEquals(stepProblems(mesh, { ...fine, globalBatchSize: -1 }), []);
  assertEquals(stepProblems(mesh, { ...fine, seqLen: 12 }), [
    "training.seq_len is 12: expected a multiple of 8 (parallelism.tensor_parallel_degree 2 x 2 x " +
    "parallelism.context_parallel_degree 2); change it to 16, or lower a degree",
  ]);
  assertEquals(stepProblems(mesh, { ...fine, globalBatchSize: 9 }), [
    "training.global_batch_size is 9: expected a multiple of 6 (training.local_batch_size 3 x 2 data-parallel ranks); " +
    "change one of them, or leave it at -1",
  ]);
});

Deno.test("with stages, microbatches must divide the local batch", () => {
  const sizes = { seqLen: 16, localBatchSize: 3, globalBatchSize: -1, pipelineMicrobatchSize: 2 };
  assertEquals(stepProblems(new Mesh({ pp: 2 }, 2), sizes), [
    "training.local_batch_size is 3: expected a multiple of parallelism.pipeline_parallel_microbatch_size, which is 2; " +
    "change one of them",
  ]);
  assertEquals(stepProblems(new Mesh({}, 2), sizes), []);
});
