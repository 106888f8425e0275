import { assertEquals, assertThrows } from "@std/assert";
import {
  axesOfDim,
  boxOf,
  type Layout,
  layoutOf,
  layoutText,
  localShape,
  partial,
  placementOn,
  replicate,
  replicated,
  shard,
} from "../../graph/layout.ts";

const degrees = { dp: 2, cp: 3, tp: 2 };
const at = (dp: number, cp: number, tp: number) => ({ dp, cp, tp });

Deno.test("an axis that a layout does not mention replicates", () => {
  const layout: Layout = new Map([["dp", shard(0)]]);
  assertEquals([placementOn(layout, "dp"), placementOn(layout, "tp")], [shard(0), replicate]);
});

Deno.test("axes of one rank and axes that replicate leave no trace in a layout", () => {
  assertEquals([...layoutOf([["dp", shard(0)], ["cp", replicate]], { dp: 1, cp: 2 })], []);
});

Deno.test("the text of a layout names dims in order, the outermost cut first, then what is partial", () => {
  const layout: Layout = new Map([["tp", partial()], ["cp", shard(1)], ["dp", shard(0, { padded: true })], [
    "ep",
    shard(1),
  ]]);
  assertEquals(layoutText(layout), "dp: Shard(0, padded), cp: Shard(1), ep: Shard(1), tp: Partial(sum)");
  assertEquals(layoutText(replicated), "Replicate");
  assertEquals(layoutText(new Map([["tp", partial("max")]])), "tp: Partial(max)");
});

Deno.test("every rank holds one box, cut by the first axis first", () => {
  const layout: Layout = new Map([["tp", shard(0)], ["dp", shard(0)], ["cp", shard(1)]]);
  assertEquals(axesOfDim(layout, 0), ["tp", "dp"]);
  assertEquals(localShape([8, 6, 5], layout, degrees), [2, 2, 5]);
  assertEquals(boxOf([8, 6, 5], layout, degrees, at(0, 0, 1)), { starts: [4, 0, 0], sizes: [2, 2, 5] });
  assertEquals(boxOf([8, 6, 5], layout, degrees, at(1, 2, 0)), { starts: [2, 4, 0], sizes: [2, 2, 5] });
});

Deno.test("a partial value has its whole shape on every rank", () => {
  assertEquals(localShape([4], new Map([["dp", partial()]]), degrees), [4]);
  assertEquals(boxOf([4], new Map([["dp", partial()]]), degrees, at(1, 0, 0)), { starts: [0], sizes: [4] });
});

Deno.test("a padded dim is cut at one go: full slices, then a shorter one, then empty ones", () => {
  const padded = shard(0, { padded: true }), layout: Layout = new Map([["dp", padded], ["cp", padded]]);
  assertEquals(localShape([7], layout, degrees), [2]);
  const boxes = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]].map(([dp, cp]) =>
    boxOf([7], layout, degrees, at(dp, cp, 0))
  );
  assertEquals(boxes.map((b) => [b.starts[0], b.sizes[0]]), [[0, 2], [2, 2], [4, 2], [6, 1], [7, 0], [7, 0]]);
});

Deno.test("padding begins inside of what an even axis has cut", () => {
  const padded = shard(0, { padded: true }), layout: Layout = new Map([["tp", shard(0)], ["cp", padded]]);
  assertEquals(localShape([8], layout, degrees), [2]);
  const boxes = [[0, 0], [0, 1], [1, 0], [1, 1], [1, 2]].map(([tp, cp]) => boxOf([8], layout, degrees, at(0, cp, tp)));
  assertEquals(boxes.map((b) => [b.starts[0], b.sizes[0]]), [[0, 2], [2, 2], [4, 2], [6, 2], [8, 0]]);
});

Deno.test("a dim that cannot be cut evenly is refused, with its size and its axes", () => {
  assertThrows(
    () => localShape([2, 9], new Map([["dp", shard(1)], ["tp", shard(1)]]), degrees, 'input "x"'),
    RangeError,
    'Cannot cut dim 1 of input "x" [2,9] into 4 equal slices over dp, tp: expected a multiple; change the size',
  );
});
