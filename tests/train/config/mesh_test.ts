import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { LayoutError } from "../../../graph/layout.ts";
import { ConfigError, cut, loadConfig, meshOf } from "../../../train/config/config.ts";

async function mesh(axes: string, ...args: string[]) {
  const { config, nproc } = await loadConfig(["--dry-run", "--mesh", axes, ...args], () => "");
  return meshOf(config, nproc);
}

async function refusal(axes: string, ...args: string[]): Promise<string> {
  try {
    await mesh(axes, ...args);
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  throw new Error(`${axes} is accepted`);
}

Deno.test("a mesh has the axes that are given, and without a number of ranks their product", async () => {
  assertEquals((await mesh("dp_shard=8,tp=4")).degrees, { pp: 1, dp_replicate: 1, dp_shard: 8, cp: 1, tp: 4, ep: 1 });
  assertEquals((await mesh("dp_replicate=2, cp=2")).size, 4);
});

Deno.test("dp_shard is what the others leave of the ranks", async () => {
  for (const axes of ["tp=8", "dp_shard=-1,tp=8"]) {
    assertEquals((await mesh(axes, "--nproc", "64")).degrees.dp_shard, 8);
    assertEquals((await mesh(axes)).degrees.dp_shard, 1);
  }
});

Deno.test("degrees come from torchtitan's keys too, and --mesh counts more where it comes later", async () => {
  const keys = ["--parallelism.tensor_parallel_degree", "2", "--parallelism.context_parallel_degree", "2"];
  const { config } = await loadConfig(["--dry-run", ...keys, "--mesh", "tp=4"], () => "");
  assertEquals(meshOf(config).size, 8);
});

Deno.test("experts share the ranks of other axes, and are refused where these cannot make their degree", async () => {
  const { size, degrees } = await mesh("dp_shard=4,ep=2");
  assertEquals([size, degrees.dp_shard, degrees.ep], [4, 4, 2]);
  assertEquals((await mesh("dp_shard=4", "--parallelism.expert_parallel_degree", "4")).degrees.ep, 4);
  assertStringIncludes(
    await refusal("dp_shard=4,ep=3"),
    "parallelism.expert_parallel_degree is 3\n  expected: 1 or 2 or 4, since it shares the ranks of " +
      "parallelism.data_parallel_shard_degree = 4 and parallelism.context_parallel_degree = 1\n  fix: change one of them",
  );
});

Deno.test("the local batch goes through a pipeline as microbatches, and other batches are refused", async () => {
  assertEquals((await mesh("pp=2,tp=2")).degrees.pp, 2);
  assertStringIncludes(
    await refusal("pp=2", "--parallelism.pipeline_parallel_microbatch_size", "3"),
    "training.local_batch_size is 8\n  expected: a multiple of parallelism.pipeline_parallel_microbatch_size, which is 3",
  );
});

Deno.test("ranks that the degrees do not make are refused, and sizes that they do not divide", async () => {
  const ranks = await refusal("dp_shard=3,tp=2", "--nproc", "8");
  assertStringIncludes(ranks, "The degrees make 6 ranks, but there are 8\n  expected: the product of ");
  assertStringIncludes(ranks, "start 6 ranks (--nproc 6)   (mesh)");
  assertStringIncludes(
    await refusal("tp=2", "--training.seq_len", "15"),
    "training.seq_len is 15\n  expected: a multiple of 4 (",
  );
});

Deno.test("what cannot be cut is a fault of the configuration, and other errors are not", () => {
  const cannot = () =>
    cut(() => {
      throw new LayoutError("Cannot cut a over tp: dim 0 is 3, not a multiple of 2; change it");
    });
  const error = assertThrows(cannot, ConfigError);
  assertEquals(
    error.message,
    "Cannot cut a over tp: dim 0 is 3, not a multiple of 2\n  expected: sizes that the axes divide\n" +
      "  fix: change it   (mesh)",
  );
  const both = assertThrows(() => {
    cut(() => {
      throw new LayoutError("a is 3: expected 2; change a\nb is 5: expected 4; change b");
    });
  }, ConfigError);
  assertStringIncludes(both.message, "2 problems\n\na is 3\n  expected: 2\n  fix: change a   (mesh)\n\nb is 5\n");
  assertThrows(() => cut(() => JSON.parse("{")), SyntaxError);
  const own = assertThrows(() => cut(() => new Array(-1)), RangeError);
  assertEquals(own.message, "Invalid array length");
});
