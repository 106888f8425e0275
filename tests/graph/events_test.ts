import { assertEquals } from "@std/assert";
import { type Touch, waitsOf } from "../../graph/events.ts";
import { Random } from "./random_graphs.ts";

/** `kernel(reads, writes)`, in pieces of memory of one byte each. */
const touch = (stream: number) => (reads: number[], writes: number[]): Touch => ({
  stream,
  reads: reads.map((start) => ({ start, end: start + 1 })),
  writes: writes.map((start) => ({ start, end: start + 1 })),
});
const [kernel, collective] = [touch(0), touch(1)];

Deno.test("a collective waits for the kernel that makes what it sends, and a kernel for the collective that makes what it reads", () => {
  assertEquals(waitsOf([kernel([], [1]), kernel([1], [2]), collective([1], [3]), kernel([3], [4])]), [0, 0, 1, 3]);
});

Deno.test("what touches other memory waits for nothing", () => {
  assertEquals(waitsOf([collective([1], [2]), kernel([3], [4]), kernel([1], [5])]), [0, 0, 0]);
});

Deno.test("memory is taken over only when the other stream has read it", () => {
  assertEquals(waitsOf([collective([1], [2]), kernel([], [1])]), [0, 1]);
  assertEquals(waitsOf([kernel([1], []), collective([], [1])]), [0, 1]);
  assertEquals(waitsOf([collective([], [1]), kernel([], [1])]), [0, 1]);
});

Deno.test("what its own stream has waited for already is not waited for again", () => {
  const list = [collective([], [1]), collective([], [2]), kernel([2], []), kernel([1], []), kernel([2], [])];
  assertEquals(waitsOf(list), [0, 0, 2, 0, 0]);
});

Deno.test("whatever is waited for, streams that run as far ahead as they may never meet in memory", () => {
  for (let seed = 1; seed <= 300; seed++) {
    const random = new Random(seed);
    const some = () => Array.from({ length: random.int(0, 2) }, () => random.int(0, 8));
    const list = Array.from({ length: 20 }, () => touch(random.int(0, 1))(some(), some())), waits = waitsOf(list);
    // What surely has ended when i begins: what is before it on its stream, and what those and it have waited for.
    const before = list.map(() => new Set<number>());
    for (const [i, { stream }] of list.entries()) {
      const direct = [list.findLastIndex((t, j) => j < i && t.stream === stream), waits[i] - 1].filter((j) => j >= 0);
      for (const j of direct) for (const k of [j, ...before[j]]) before[i].add(k);
      const shared = (a: Touch["reads"], b: Touch["reads"]) => a.some((x) => b.some((y) => x.start === y.start));
      for (let j = 0; j < i; j++) {
        const clash = shared(list[i].writes, [...list[j].reads, ...list[j].writes]) ||
          shared(list[i].reads, list[j].writes);
        assertEquals(clash && !before[i].has(j), false, `seed ${seed}: ${i} may run beside ${j}`);
      }
    }
  }
});
