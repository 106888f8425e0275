/** C4 as it lies on disk and on the hub: gzip shards of JSON lines `{"text", "timestamp", "url"}`, in two parts. @module */

/** Part of C4 that a shard belongs to. */
export type Split = "train" | "validation";

/** Where C4 lies on the hub: a commit, so that it stays the same text whatever is changed there. */
export const C4_REPOSITORY = "hf://datasets/allenai/c4@1588ec454efa1a09f29cd18ddd04fe05fc8653a2";

/** Its configurations of English text: how many shards each part has. */
export const C4_CONFIGURATIONS: Readonly<Record<string, Readonly<Record<Split, number>>>> = {
  "en": { train: 1024, validation: 8 },
  "en.noblocklist": { train: 1024, validation: 8 },
  "en.noclean": { train: 7168, validation: 64 },
  "realnewslike": { train: 512, validation: 1 },
};

/** C4's name of shard `n` of `count`. */
export function shardName(split: Split, n: number, count: number): string {
  const digits = (x: number) => String(x).padStart(5, "0");
  return `c4-${split}.${digits(n)}-of-${digits(count)}.json.gz`;
}

/** The paths of a configuration's shards in its repository. */
export function c4Paths(configuration: string, split: Split): string[] {
  const count = C4_CONFIGURATIONS[configuration][split];
  return Array.from({ length: count }, (_, n) => `${configuration}/${shardName(split, n, count)}`);
}
