import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { BEGINS, bestFit, ID, MASKED, PADDING } from "../../data/packing.ts";

/** Documents of these lengths, whose tokens are all different. */
function documentsOf(lengths: readonly number[]): Int32Array[] {
  let next = 1;
  return lengths.map((length) => Int32Array.from({ length }, () => next++));
}

const tokens = (row: Int32Array) => [...row].map((word) => word & PADDING ? 0 : word & ID);
const firsts = (row: Int32Array) => [...row.keys()].filter((n) => row[n] & BEGINS);

Deno.test("each document goes into the fullest row that has room for it, long ones first", () => {
  const rows = bestFit(documentsOf([3, 5, 2, 4, 1]), 6);
  assertEquals(rows.map(tokens), [[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 8, 15], [9, 10, 11, 12, 13, 14]]);
  assertEquals(rows.map(firsts), [[0, 3], [0, 5], [0, 2]]);
});

Deno.test("a document that fits is not cut, and every token is the target of one place at most", () => {
  const lengths = fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 60 });
  fc.assert(fc.property(lengths, fc.integer({ min: 2, max: 20 }), (lengths, length) => {
    const rows = bestFit(documentsOf(lengths), length),
      learned = rows.flatMap((row) => [...row].filter((word) => !(word & MASKED)));
    const all = lengths.reduce((sum, n) => sum + n, 0), begin = new Set(documentsOf(lengths).map(([first]) => first));
    assertEquals(
      learned.sort((a, b) => a - b),
      Array.from({ length: all }, (_, n) => n + 1).filter((n) => !begin.has(n)),
    );
    const pieces = rows.flatMap((row) => firsts(row).filter((n) => !(row[n] & PADDING))).length;
    const needed = (n: number) => Math.max(1, Math.ceil((n - 1) / (length - 1)));
    assertEquals(pieces, lengths.reduce((sum, n) => sum + needed(n), 0));
  }));
});

Deno.test("rows are nearly full: of 400 documents, up to half a row long, less than 2 % is padding", () => {
  let state = 7;
  const lengths = Array.from({ length: 400 }, () => 8 + ((state = (state * 1103515245 + 12345) % 2 ** 31) >> 8) % 120);
  const rows = bestFit(documentsOf(lengths), 257),
    padding = rows.flatMap((row) => [...row]).filter((word) => word & PADDING);
  assert(padding.length < 0.02 * rows.length * 257, `${padding.length} of ${rows.length * 257}`);
});
