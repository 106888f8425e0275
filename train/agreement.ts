/** Ranks that were not started alike would hang, or train nonsense. So before they train together they compare what must be the same.
 * @module */
import type { ProcessGroup } from "./process_group.ts";

/** Ranks differ in what must be the same; the message says in what, and which ranks. All ranks throw it, with one text. */
export class AgreementError extends Error {
  /** Tells it from other errors. */
  override readonly name = "AgreementError";
}

/** Of many differences, so many are shown. */
const MOST_SHOWN = 8;

/** Compares facts with those of the other ranks.
 * @param facts JSON values; of nested ones every key is compared by its path.
 * @throws {AgreementError} where they differ. */
export async function agree(
  group: Pick<ProcessGroup, "exchangeJson">,
  facts: Readonly<Record<string, unknown>>,
): Promise<void> {
  const found = differences(await group.exchangeJson(facts));
  if (found.length === 0) return;
  const more = found.length - MOST_SHOWN;
  throw new AgreementError([
    "The ranks of this run were not started alike",
    ...found.slice(0, MOST_SHOWN),
    ...(more > 0 ? [`and ${more} more`] : []),
    "expected: the same of these on every rank",
    "fix: start all ranks with the same command line, from the same checkout   (ranks_differ)",
  ].join("\n  "));
}

/** Where the values of ranks differ, a line each: `training.seq_len: 16 on ranks 0, 2; 32 on rank 1`. */
export function differences(facts: readonly unknown[]): string[] {
  const flat = facts.map((one) => new Map(leaves(one, "")));
  const paths = new Set(flat.flatMap((one) => [...one.keys()]));
  return [...paths].flatMap((path) => {
    const ranks = new Map<string, number[]>(); // by value
    flat.forEach((one, rank) => {
      const value = one.get(path) ?? "nothing";
      ranks.set(value, [...ranks.get(value) ?? [], rank]);
    });
    if (ranks.size === 1) return [];
    return [
      `${path}: ${
        [...ranks].map(([value, list]) => `${value} on rank${list.length > 1 ? "s" : ""} ${list.join(", ")}`).join("; ")
      }`,
    ];
  });
}

/** Paths and values of all that is no object. */
export function leaves(value: unknown, path: string): [path: string, text: string][] {
  if (value === null || typeof value !== "object") return [[path, JSON.stringify(value)]];
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, path === "" ? key : `${path}.${key}`));
}
