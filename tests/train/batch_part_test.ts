import { assertEquals } from "@std/assert";
import { makeBatch } from "../../data/batch.ts";
import { BatchPart } from "../../train/batch_part.ts";
import type { BatchViews } from "../../train/step_program.ts";
import { meshOf } from "../parallel/step_graphs.ts";

/** Two rows of eight tokens: 0 to 7 and 10 to 17. */
function batch() {
  const made = makeBatch(2, 8);
  made.tokens.set([0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17]);
  made.targets.set(made.tokens.map((t) => t + 1));
  return made;
}

/** What a rank of `cp` gets, 2 rows of `tokens` each. */
function partOf(part: BatchPart, tokens: number): Record<"tokens" | "targets" | "positions", number[]> {
  const views: BatchViews = {
    tokens: new Int32Array(2 * tokens),
    targets: new Int32Array(2 * tokens),
    positions: new Int32Array(2 * tokens),
  };
  part.put(views, batch());
  return { tokens: [...views.tokens], targets: [...views.targets], positions: [...views.positions] };
}

Deno.test("a process alone gets whole rows", () => {
  const { tokens, targets, positions } = batch();
  assertEquals(partOf(new BatchPart(8), 8), { tokens: [...tokens], targets: [...targets], positions: [...positions] });
});

Deno.test("ranks of cp get the head and the tail of each row, with the positions that they have in it", () => {
  const mesh = meshOf({ cp: 2, tp: 2 }), part = (rank: number) => partOf(new BatchPart(8, { mesh, rank }), 4);
  assertEquals(part(0).tokens, [0, 1, 6, 7, 10, 11, 16, 17]);
  assertEquals(part(1), part(0)); // tensor parallel ranks work on the same tokens
  assertEquals(part(2), {
    tokens: [2, 3, 4, 5, 12, 13, 14, 15],
    targets: [3, 4, 5, 6, 13, 14, 15, 16],
    positions: [2, 3, 4, 5, 2, 3, 4, 5],
  });
});

Deno.test("without balance ranks of cp get slices", () => {
  const mesh = meshOf({ cp: 4 });
  assertEquals(partOf(new BatchPart(8, { mesh, rank: 3, balancer: null }), 2).tokens, [6, 7, 16, 17]);
});
