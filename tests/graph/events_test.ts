import { assert, assertEquals } from "@std/assert";
import { type SlotTouch, type Touch, type Wait, waitsOf } from "../../graph/events.ts";
import { type Ordered, unordered } from "./order.ts";
import { Random } from "./random_graphs.ts";

/** `kernel(reads, writes)`, in pieces of memory of one byte each. */
const touch = (stream: number) => (reads: number[], writes: number[], inSlot = none(stream)): SlotTouch => ({
  stream,
  reads: reads.map((start) => ({ start, end: start + 1 })),
  writes: writes.map((start) => ({ start, end: start + 1 })),
  inSlot,
});
const none = (stream: number): Touch => ({ stream, reads: [], writes: [] });
const [kernel, collective] = [touch(0), touch(1)];

const numbers = (waits: readonly (readonly Wait[])[]): number[][] => waits.map((w) => w.map((x) => x.instruction));
const waits = (list: SlotTouch[]): number[][] => numbers(waitsOf([list])[0]);

Deno.test("a collective waits for the kernel that makes what it sends, and a kernel for the collective that makes what it reads", () => {
  const list = [kernel([], [1]), kernel([1], [2]), collective([1], [3]), kernel([3], [4])];
  // The first waits for the collective of the action before, which reads what it overwrites.
  assertEquals(waits(list), [[2], [], [0], [2]]);
});

Deno.test("what touches other memory waits for nothing", () => {
  assertEquals(waits([collective([1], [2]), kernel([3], [4]), kernel([1], [5])]), [[], [], []]);
});

Deno.test("memory is taken over only when the other stream has read it, in this action or in an earlier one", () => {
  assertEquals(waits([collective([1], [2]), kernel([], [1])]), [[1], [0]]);
  assertEquals(waits([kernel([1], []), collective([], [1])]), [[1], [0]]);
  assertEquals(waits([collective([], [1]), kernel([], [1])]), [[1], [0]]);
});

Deno.test("what its own stream has waited for already is not waited for again", () => {
  const list = [collective([], [1]), collective([], [2]), kernel([2], []), kernel([1], []), kernel([2], [])];
  assertEquals(waits(list), [[3], [4], [1], [], []]);
});

Deno.test("what another section did last is waited for where it is in the way, so that transfers may go on beyond their action", () => {
  const sections = [[kernel([], [1]), collective([1], [2])], [kernel([], [3]), kernel([2], [4])]];
  assertEquals(waitsOf(sections).map(numbers), [[[1], [0]], [[], [1]]]);
  // It has nothing to wait for where the collective is still under way.
  const ordered = sections.map((list, s) => list.map((t, i): Ordered => ({ ...t, waits: waitsOf(sections)[s][i] })));
  assertEquals(unordered(ordered, [0, 1, 1, 0, 0, 1]), []);
});

/** Sections of random instructions that touch random memory. */
function randomSections(random: Random): SlotTouch[][] {
  const some = () => Array.from({ length: random.int(0, 2) }, () => random.int(0, 12));
  const one = (stream: number) => touch(stream)(some(), some(), touch(stream)(some(), some()));
  const section = () => Array.from({ length: random.int(0, 9) }, () => one(random.int(0, 1)));
  return Array.from({ length: random.int(1, 4) }, section);
}

Deno.test("in whatever order sections run, streams that wait for all that they are to never meet in memory", () => {
  for (let seed = 1; seed <= 500; seed++) {
    const random = new Random(seed), sections = randomSections(random), found = waitsOf(sections);
    const ordered = sections.map((list, s) => list.map((t, i): Ordered => ({ ...t, waits: found[s][i] })));
    const actions = Array.from({ length: 8 }, () => ({
      section: random.int(0, sections.length - 1),
      slot: random.int(0, 2),
      source: random.int(0, 2),
    }));
    assertEquals(unordered(ordered, actions), [], `seed ${seed}`);
  }
});

Deno.test("what is done in another slot is not waited for", () => {
  const [send, forward] = [collective([], [], touch(1)([1], [])), kernel([], [], touch(0)([], [1]))];
  const sections = [[forward], [send]], found = waitsOf(sections);
  assertEquals(found, [[[{ instruction: 1, inSlot: true }]], [[{ instruction: 0, inSlot: true }]]]);
  const ordered = sections.map((list, s) => list.map((t, i): Ordered => ({ ...t, waits: found[s][i] })));
  // The forward of slot 1 goes on beside what is sent from slot 0; that of slot 0 is the one that would overwrite it.
  const runs = [0, 1, 0].map((section, i) => ({ section, slot: i === 2 ? 1 : 0 }));
  assertEquals(unordered(ordered, [...runs, { section: 0, slot: 0 }]), []);
  const without = ordered.map((list) => list.map((t): Ordered => ({ ...t, waits: [] })));
  assertEquals(unordered(without, runs), ["1 of action 1 may run beside 0 of action 0"]);
});

Deno.test("a wait that is left out is noticed", () => {
  let [left, noticed] = [0, 0];
  for (let seed = 1; seed <= 100; seed++) {
    const sections = randomSections(new Random(seed)), found = waitsOf(sections), { length } = sections;
    // Each section behind each, twice.
    const pairs = Array.from({ length: length * length }, (_, i) => [i % length, Math.floor(i / length)]).flat();
    sections.forEach((list, s) =>
      list.forEach((_, i) =>
        found[s][i].forEach((_, w) => {
          const without = (t: number, j: number) => found[t][j].filter((_, k) => t !== s || j !== i || k !== w);
          const ordered = sections.map((list, t) => list.map((own, j): Ordered => ({ ...own, waits: without(t, j) })));
          left++;
          if (unordered(ordered, [...pairs, ...pairs]).length > 0) noticed++;
        })
      )
    );
  }
  // Others are implied by what somebody else waits for.
  assert(left > 500 && noticed > 0.5 * left, `${noticed} of ${left}`);
});
