/** C4 as it lies on disk: gzip shards of JSON lines `{"text", "timestamp", "url"}`, in two parts. @module */

/** Part of C4 that a shard belongs to. */
export type Split = "train" | "validation";

/** C4's name of shard `n` of `count`. */
export function shardName(split: Split, n: number, count: number): string {
  const digits = (x: number) => String(x).padStart(5, "0");
  return `c4-${split}.${digits(n)}-of-${digits(count)}.json.gz`;
}
