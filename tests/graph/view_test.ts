import { assert, assertEquals } from "@std/assert";
import { forEachIndex } from "../../graph/array.ts";
import { numel } from "../../graph/ir.ts";
import { collapseTo, isPacked, mergeDims, packed, sliceView, throughDims, type View } from "../../graph/view.ts";
import { forSeeds, Random } from "./random_graphs.ts";

/** Places of all elements, in row-major order. */
function elements(view: View): number[] {
  const out: number[] = [];
  forEachIndex(view.shape, [view.strides], ([at]) => out.push(view.offset + at));
  return out;
}

/** Some view of packed memory: its dims in another order, a box of it, some dims repeated. */
function randomView(random: Random, rank: number): View {
  const whole = packed(Array.from({ length: rank }, () => random.int(1, 4)));
  const order = random.oneIn(2) ? whole.shape.map((_, d) => d) : random.shuffle(whole.shape.map((_, d) => d));
  const shape = order.map((d) => random.oneIn(4) ? random.int(1, whole.shape[d]) : whole.shape[d]);
  const starts = order.map((d, i) => random.int(0, whole.shape[d] - shape[i]));
  const strides = order.map((d) => random.oneIn(8) ? 0 : whole.strides[d]);
  return sliceView({ offset: random.int(0, 9), shape: order.map((d) => whole.shape[d]), strides }, starts, shape);
}

/** A pattern for a shape: dims split, labels merged and put in another order, new ones in between. Labels with their sizes. */
function randomPattern(random: Random, shape: readonly number[]) {
  const sizes: Record<string, number> = {};
  const name = (size: number): string => {
    const label = "abcdefghijklmnop"[Object.keys(sizes).length];
    sizes[label] = size;
    return label;
  };
  const group = (list: readonly string[]): string => list.length === 1 ? list[0] : `(${list.join(" ")})`;
  const from = shape.map((n) => {
    const part = [2, 3].find((p) => n % p === 0 && random.oneIn(2));
    return (part ? [part, n / part] : [n]).map(name);
  });
  const all = random.oneIn(2) ? from.flat() : random.shuffle(from.flat());
  if (random.oneIn(3)) all.splice(random.int(0, all.length), 0, name(random.int(1, 3)));
  const to: string[][] = [];
  for (const label of all) {
    if (to.length > 0 && random.oneIn(3)) to.at(-1)!.push(label);
    else to.push([label]);
  }
  if (random.oneIn(4)) to.splice(random.int(0, to.length), 0, ["1"]);
  return { dims: `${from.map(group).join(" ")} -> ${to.map(group).join(" ")}`, sizes, from, to };
}

Deno.test("a view through dims holds the same elements, and there is none only where no strides could say it", () => {
  let views = 0, none = 0;
  forSeeds(2000, (seed) => {
    const random = new Random(seed), view = randomView(random, random.int(1, 4));
    const { dims, sizes, from, to } = randomPattern(random, view.shape);
    const size = (label: string): number => sizes[label] ?? 1;
    // Label by label: where the element of each output index lies.
    const strides = new Map(
      from.flatMap((dim, d) =>
        dim.map((l, i): [string, number] => [l, view.strides[d] * numel(dim.slice(i + 1).map(size))])
      ),
    );
    const order = to.flat(), expected: number[] = [];
    forEachIndex(order.map(size), [order.map((l) => strides.get(l) ?? 0)], ([at]) => expected.push(view.offset + at));
    const actual = throughDims(view, dims, sizes), shape = to.map((dim) => numel(dim.map(size)));
    if (actual) {
      views++;
      assertEquals(actual.shape, shape, dims);
      assertEquals(elements(actual), expected, dims);
    } else {
      none++;
      assert(!isAffine(shape, expected), `${dims} of strides [${view.strides}] can be said with strides`);
    }
  });
  assert(views > 500 && none > 200, `${views} views, ${none} without`);
});

/** Are these places, in row-major order of a shape, an offset and one stride for each dim? */
function isAffine(shape: readonly number[], places: readonly number[]): boolean {
  const strides = shape.map((n, d) => n === 1 ? 0 : places[numel(shape.slice(d + 1))] - places[0]);
  return String(elements({ offset: places[0], shape, strides })) === String(places);
}

Deno.test("packed memory is row-major, and dims of size 1 may have any stride", () => {
  assertEquals(packed([2, 3, 4]), { offset: 0, shape: [2, 3, 4], strides: [12, 4, 1] });
  assert(isPacked(packed([])));
  assert(isPacked({ offset: 7, shape: [2, 1, 4], strides: [4, 99, 1] }));
  assert(!isPacked({ offset: 0, shape: [2, 2, 4], strides: [4, 4, 1] }));
  assert(!isPacked({ offset: 0, shape: [3], strides: [0] }));
});

Deno.test("a box of a box starts at the sum of both starts", () => {
  const box = sliceView(sliceView(packed([5, 6]), [1, 2], [4, 3]), [2, 1], [1, 2]);
  assertEquals(box, { offset: 3 * 6 + 3, shape: [1, 2], strides: [6, 1] });
});

Deno.test("dims are one where each is as far apart as the next is long", () => {
  assertEquals(mergeDims([2, 3, 4], [12, 4, 1]), 1);
  assertEquals(mergeDims([2, 3], [24, 8]), 8);
  assertEquals(mergeDims([2, 1, 3], [3, 77, 1]), 1);
  assertEquals(mergeDims([2, 3], [0, 0]), 0);
  assertEquals(mergeDims([2, 3], [1, 2]), undefined);
  assertEquals(mergeDims([2, 3], [0, 1]), undefined);
  assertEquals(mergeDims([1, 1], [5, 7]), 1);
  assertEquals(mergeDims([], []), 1);
});

Deno.test("leading dims collapse without moving an element, or not at all", () => {
  let collapsed = 0;
  forSeeds(500, (seed) => {
    const random = new Random(seed), view = randomView(random, random.int(0, 4)), rank = random.int(0, 3);
    const lead = view.shape.length - rank + 1, actual = collapseTo(view, rank);
    if (lead < 0) return;
    const shape = lead === 0
      ? [1, ...view.shape]
      : rank === 0
      ? []
      : [numel(view.shape.slice(0, lead)), ...view.shape.slice(lead)];
    if (actual) {
      collapsed++;
      assertEquals(actual.shape, shape);
      assertEquals(elements(actual), elements(view));
    } else assert(numel(shape) !== numel(view.shape) || !isAffine(shape, elements(view)));
  });
  assert(collapsed > 100);
});
