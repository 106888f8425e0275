import { assertEquals } from "@std/assert";
import { loadConfig, trainOptions } from "../../../train/config/config.ts";

/** What a command line trains and validates on, without what is not set. */
async function dataOf(...args: string[]): Promise<unknown[]> {
  const { config } = await loadConfig(["--validation.enable", ...args], () => "");
  const { data, validation } = trainOptions(config);
  return JSON.parse(JSON.stringify([data, validation!.data]));
}

Deno.test("who trains on C4 of the hub validates on it, and who names a path on the held-out sample", async () => {
  const names = async (...args: string[]) => (await dataOf(...args)).map((data) => (data as { name: string }).name);
  assertEquals(await names("--training.dataset", "c4"), ["c4", "c4_validation/en"]);
  assertEquals(await names("--training.dataset", "c4/realnewslike"), ["c4/realnewslike", "c4_validation/realnewslike"]);
  assertEquals(await names("--training.dataset", "c4", "--training.dataset_path", "shards/"), ["c4", "c4_validation"]);
  assertEquals(await names("--training.dataset", "c4", "--validation.dataset_path", "held/"), ["c4", "c4_validation"]);
  assertEquals(await names(), ["c4_test", "c4_validation"]);
});

Deno.test("the cache of streamed files is where the keys say, of training and validation alike", async () => {
  const args = ["--training.dataset", "c4", "--data.cache_dir", "kept", "--data.cache_size", "5GB"];
  assertEquals(
    (await dataOf(...args)).map((data) => (data as { cache: unknown }).cache),
    Array(2).fill({ folder: "kept", bytes: 5e9 }),
  );
});
