/** Schedules that are made for tests: random ones that can run, and a judge that knows nothing of how the library verifies.
 * @module */
import type { Action, Cell, Schedule } from "../../../parallel/pipeline/actions.ts";

/** Numbers in [0, 1) that follow from a seed. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ state >>> 15, state | 1);
    t ^= t + Math.imul(t ^ t >>> 7, t | 61);
    return ((t ^ t >>> 14) >>> 0) / 4294967296;
  };
}

/** A whole number below `limit`. */
export const below = (limit: number, random: () => number): number => Math.floor(random() * limit);

/** A random schedule that can run: stages lie on ranks anyhow, and of all actions that could be next one is taken, until none is left. */
export function randomSchedule(random: () => number): Schedule {
  const ranks = 1 + below(4, random), stages = ranks + below(4, random), microbatches = 1 + below(5, random);
  const rankOf = Array.from({ length: stages }, (_, stage) => stage < ranks ? stage : below(ranks, random));
  const rows = Array.from({ length: ranks }, (): Cell[] => []), done = new Set<string>();
  const all = rankOf.flatMap((_, stage) =>
    Array.from({ length: microbatches }, (_, microbatch): Action[] => {
      const kinds = random() < 0.5 ? ["F", "B"] as const : ["F", "I", "W"] as const;
      return kinds.map((kind) => ({ stage, kind, microbatch }));
    }).flat()
  );
  while (all.length > 0) {
    const open = all.filter((action) => needs(action, stages).every((any) => any.some((one) => done.has(one))));
    const action = open[below(open.length, random)], { stage, kind, microbatch } = action, row = rows[rankOf[stage]];
    all.splice(all.indexOf(action), 1);
    done.add(`${stage}${kind}${microbatch}`);
    const last = row.at(-1);
    // A pair is a forward and a whole backward, one behind the other.
    if (kind === "B" && last && "kind" in last && last.kind === "F" && random() < 0.3) {
      row.splice(-1, 1, [last, action]);
    } else row.push(action);
    if (random() < 0.1) row.push(null);
  }
  return { name: "random", microbatches, rankOf, rows };
}

/** What must be done before an action: of each list one. */
function needs({ stage, kind, microbatch }: Action, stages: number): string[][] {
  const of = (at: number, kinds: string) => [...kinds].map((k) => `${at}${k}${microbatch}`);
  if (kind === "F") return stage === 0 ? [] : [of(stage - 1, "F")];
  if (kind === "W") return [of(stage, "I")];
  return [of(stage, "F"), ...stage < stages - 1 ? [of(stage + 1, "BI")] : []];
}

/** Can a file of cells run, pairs and all? Plain and slow: it takes whatever can be taken until nothing can. */
export function canRun(
  text: string,
  { rankOf, microbatches }: { rankOf: readonly number[]; microbatches: number },
): boolean {
  const rows = text.trimEnd().split("\n").map((line) => line.split(",").map((cell) => cell.trim()));
  const n = "(?:0|[1-9]\\d*)", pair = `\\(${n}F${n};${n}(?:B|BW)${n}\\)OVERLAP_F_B`;
  const form = new RegExp(`^(?:${n}(?:F|B|I|W|BW)${n}|${pair}|)$`);
  const leaf = /(\d+)(BW|F|B|I|W)(\d+)/g;
  if (rows.length !== Math.max(...rankOf) + 1 || rows.flat().some((cell) => !form.test(cell))) return false;
  const read = (older: boolean): Action[][] =>
    rows.map((row) =>
      row.flatMap((cell) =>
        [...cell.matchAll(leaf)].map(([, stage, kind, microbatch]) => ({
          stage: Number(stage),
          kind: (older ? { F: "F", B: "I", BW: "B", W: "W", I: "x" } : { F: "F", B: "B", I: "I", W: "W", BW: "x" })[
            kind
          ] as Action["kind"],
          microbatch: Number(microbatch),
        }))
      )
    );
  const pairs = rows.flat().filter((cell) => cell.startsWith("("));
  return [false, true].some((older) => {
    if (pairs.some((cell) => cell.includes("BW") !== older)) return false;
    const actions = read(older), left = actions.map((row) => [...row]), done = new Set<string>();
    const legal = actions.every((row, rank) =>
      row.every(({ stage, kind, microbatch }) =>
        rankOf[stage] === rank && microbatch < microbatches && "FBIW".includes(kind)
      )
    );
    if (!legal) return false;
    for (let moved = true; moved;) {
      moved = false;
      for (const row of left) {
        while (row.length > 0 && needs(row[0], rankOf.length).every((any) => any.some((one) => done.has(one)))) {
          const { stage, kind, microbatch } = row.shift()!, name = `${stage}${kind}${microbatch}`;
          if (done.has(name)) return false;
          done.add(name);
          moved = true;
        }
      }
    }
    if (left.some((row) => row.length > 0)) return false;
    return rankOf.every((_, stage) =>
      Array.from({ length: microbatches }, (_, m) => m).every((m) => {
        const has = (kind: string) => done.has(`${stage}${kind}${m}`);
        return has("F") && (has("B") ? !has("I") && !has("W") : has("I") && has("W"));
      })
    );
  });
}
