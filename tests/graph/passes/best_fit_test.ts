import { assert, assertEquals } from "@std/assert";
import { bestFit, type Placed } from "../../../graph/passes/best_fit.ts";
import { forSeeds, Random } from "../random_graphs.ts";

interface Allocation extends Placed {
  readonly isSent: boolean;
}

const START = 64, ALIGNMENT = 16;

function allocation(bytes: number, first: number, last: number, more: Partial<Allocation> = {}): Allocation {
  return { offset: -1, bytes, first, last, held: last, isSent: false, ...more };
}

function offsets(...allocations: Allocation[]): number[] {
  bestFit(allocations, { start: START, alignment: ALIGNMENT, isSent: (a) => a.isSent });
  return allocations.map((a) => a.offset);
}

Deno.test("what lives at the same time lies apart, on aligned offsets, and what does not shares memory", () => {
  assertEquals(offsets(allocation(30, 0, 2), allocation(20, 1, 3), allocation(16, 3, 4)), [64, 96, 64]);
});

Deno.test("the smallest gap that is large enough is taken, and the lowest of those that are equal", () => {
  const gaps = [allocation(96, 0, 4), allocation(95, 0, 9), allocation(80, 0, 4), allocation(79, 0, 9)];
  assertEquals(offsets(...gaps, allocation(70, 5, 6)).at(-1), 256, "80 bytes fit better than 96");
  const more = [allocation(200, 0, 9), allocation(80, 0, 4), allocation(79, 0, 9)];
  const wide = [allocation(70, 0, 4), allocation(69, 0, 4), allocation(68, 0, 9)];
  assertEquals(offsets(...more, ...wide, allocation(66, 5, 6)).at(-1), 272, "80 bytes fit better than 160");
});

Deno.test("while a collective is at work, no kernel writes to its operands, but a collective behind it may", () => {
  const sent = allocation(64, 0, 1, { held: 5, isSent: true });
  assertEquals(offsets(sent, allocation(32, 3, 4)), [64, 128]);
  assertEquals(offsets(sent, allocation(32, 3, 4, { isSent: true })), [64, 64]);
});

Deno.test("random allocations never lie on each other while both live", () => {
  forSeeds(50, (seed) => {
    const random = new Random(seed);
    const all = Array.from({ length: 60 }, () => {
      const first = random.int(0, 40),
        last = first + random.int(0, 15),
        held = last + random.int(0, 1) * random.int(0, 9);
      return allocation(random.int(1, 200), first, last, { held, isSent: held > last });
    });
    offsets(...all);
    let shared = 0;
    for (const [i, a] of all.entries()) {
      assert(a.offset >= START && a.offset % ALIGNMENT === 0);
      for (const b of all.slice(0, i)) {
        const [early, late] = a.first <= b.first ? [a, b] : [b, a];
        const meet = late.first <= (late.isSent ? early.last : early.held);
        const touch = a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
        assert(!(meet && touch), `${JSON.stringify(a)} and ${JSON.stringify(b)}`);
        shared += Number(touch);
      }
    }
    assert(shared > 20, "memory is used again");
  });
});
