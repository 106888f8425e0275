import { assert, assertEquals } from "@std/assert";
import { forEachIndex, stridesOf } from "../../../graph/array.ts";
import { numel } from "../../../graph/ir.ts";
import type { Box } from "../../../graph/layout.ts";
import { pieceBytes, shareOf, sharesOf, stretches } from "../../../train/checkpoint/pieces.ts";
import { forSeeds, Random } from "../../graph/random_graphs.ts";
import { randomMesh } from "../../parallel/random_layouts.ts";
import { layouts, randomStates } from "./fixture.ts";

/** Element numbers of a box within a tensor. */
function elements({ starts, sizes }: Box, shape: readonly number[]): number[] {
  const strides = stridesOf(shape), base = starts.reduce((sum, s, d) => sum + s * strides[d], 0), found: number[] = [];
  forEachIndex(sizes, [strides], ([i]) => found.push(base + i));
  return found;
}

Deno.test("stretches name every element that two boxes share, once, and nothing else", () => {
  forSeeds(200, (seed) => {
    const random = new Random(seed), shape = Array.from({ length: random.int(0, 4) }, () => random.int(1, 5));
    const box = (): Box => {
      const starts = shape.map((n) => random.int(0, n - 1));
      return { starts, sizes: shape.map((n, d) => random.oneIn(3) ? n - starts[d] : random.int(1, n - starts[d])) };
    };
    const [from, to] = [box(), box()], [a, b] = [elements(from, shape), elements(to, shape)];
    const found = [...stretches(from, to)].flatMap((s) =>
      Array.from({ length: s.length }, (_, i) => [a[s.from + i], b[s.to + i]])
    );
    assert(found.every(([x, y]) => x === y), "an element is taken for another");
    assertEquals(found.map(([x]) => x).sort((x, y) => x - y), a.filter((x) => b.includes(x)).sort((x, y) => x - y));
  });
});

Deno.test("boxes that are whole rows are one stretch", () => {
  const whole = { starts: [0, 0], sizes: [6, 4] };
  assertEquals([...stretches(whole, { starts: [2, 0], sizes: [3, 4] })], [{ from: 8, to: 0, length: 12 }]);
  assertEquals([...stretches(whole, { starts: [2, 1], sizes: [2, 3] })].length, 2);
  assertEquals([...stretches({ starts: [], sizes: [] }, { starts: [], sizes: [] })], [{ from: 0, to: 0, length: 1 }]);
});

Deno.test("what the ranks of any mesh write is every element of every state, once", () => {
  forSeeds(60, (seed) => {
    const random = new Random(seed), states = randomStates(random), mesh = randomMesh(random);
    const layoutOf = layouts(states, mesh, random), shares = sharesOf(states, layoutOf, mesh);
    assertEquals(shares.length, mesh.size);
    shares.forEach((share, rank) => assertEquals(shareOf(rank, states, layoutOf, mesh), share));
    for (const state of states) {
      const written = shares.flat().filter((p) => p.state === state).flatMap((p) => elements(p, state.shape));
      assertEquals(written.sort((a, b) => a - b), Array.from({ length: numel(state.shape) }, (_, i) => i));
    }
    for (const share of shares) {
      assertEquals(new Set(share.map((p) => p.state.name)).size, share.length, "two pieces of one state in a file");
      assert(share.every((p) => pieceBytes(p) > 0));
    }
  });
});
