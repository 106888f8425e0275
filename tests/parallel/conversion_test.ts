import { assertEquals } from "@std/assert";
import { type Layout, layoutText, partial, shard } from "../../graph/layout.ts";
import { traceGraph } from "../../graph/trace.ts";
import { conversion } from "../../parallel/conversion.ts";
import { exchangesOf } from "../../parallel/exchanges.ts";
import { Mesh } from "../../parallel/mesh.ts";
import { partition } from "../../parallel/partition.ts";
import { forSeeds, Random } from "../graph/random_graphs.ts";
import { assertSameOnMesh, layoutsFor } from "./lockstep.ts";
import { randomLayout, randomMesh } from "./random_layouts.ts";

const padded = shard(0, { padded: true });

/** `all_gather(dp cp) 0`, ... */
function steps(from: Layout, to: Layout): string[] {
  return conversion(from, to, 2).map(({ op, axes, dim }) =>
    `${op}(${axes.join(" ")})${dim === undefined ? "" : ` ${dim}`}`
  );
}
const layout = (...entries: [string, ReturnType<typeof shard> | ReturnType<typeof partial>][]): Layout =>
  new Map(entries);

Deno.test("equal layouts need nothing, in whatever order their axes are named", () => {
  assertEquals(steps(layout(["dp", shard(0)], ["tp", shard(1)]), layout(["tp", shard(1)], ["dp", shard(0)])), []);
});

Deno.test("axes that cut one dim are gathered in one group", () => {
  assertEquals(steps(layout(["dp", shard(0)], ["cp", shard(0)]), layout()), ["all_gather(dp cp) 0"]);
});

Deno.test("outer cuts stay where they are", () => {
  const both = layout(["tp", shard(0)], ["dp", shard(0)]);
  assertEquals(steps(both, layout(["tp", shard(0)])), ["all_gather(dp) 0"]);
  assertEquals(steps(both, layout(["dp", shard(0)])), ["all_gather(tp dp) 0", "slice_by_rank(dp) 0"]);
});

Deno.test("summands are reduced in one group, and scattered where slices are wanted", () => {
  const summands = layout(["dp", partial()], ["cp", partial()]);
  assertEquals(steps(summands, layout()), ["all_reduce(dp cp)"]);
  assertEquals(steps(summands, layout(["dp", shard(0)], ["cp", shard(0)])), ["reduce_scatter(dp cp) 0"]);
  assertEquals(steps(summands, layout(["cp", shard(1)])), ["reduce_scatter(cp) 1", "all_reduce(dp)"]);
});

Deno.test("summands cannot be scattered outside of a cut that is there already", () => {
  const from = layout(["tp", shard(0)], ["cp", partial()]);
  assertEquals(steps(from, layout(["tp", shard(0)], ["cp", shard(0)])), ["reduce_scatter(cp) 0"]);
  assertEquals(steps(from, layout(["cp", shard(0)], ["tp", shard(0)])), [
    "all_reduce(cp)",
    "all_gather(tp) 0",
    "slice_by_rank(cp tp) 0",
  ]);
});

Deno.test("a whole value is sliced or becomes summands without a word between ranks", () => {
  assertEquals(steps(layout(), layout(["dp", shard(0)], ["tp", partial()])), [
    "slice_by_rank(dp) 0",
    "keep_on_first(tp)",
  ]);
});

Deno.test("a whole value is its own maximum, and the maximum of shards is taken before they are moved", () => {
  assertEquals(steps(layout(), layout(["tp", partial("max")])), []);
  assertEquals(conversion(layout(["tp", partial("max")]), layout(), 1).map((s) => [s.op, s.by]), [[
    "all_reduce",
    "max",
  ]]);
});

Deno.test("slices are made before what is gathered, which is then smaller", () => {
  assertEquals(steps(layout(["tp", shard(1)]), layout(["dp", shard(0)])), ["slice_by_rank(dp) 0", "all_gather(tp) 1"]);
});

Deno.test("a cut moves from dim to dim by an all_to_all, several axes at one go where they are innermost and come next", () => {
  const [rows, columns] = [0, 1].map((dim) => layout(["tp", shard(dim)]));
  assertEquals(steps(rows, columns), ["all_to_all(tp) 0"]);
  const both = (...dims: number[]) => layout(["dp", shard(dims[0])], ["tp", shard(dims[1])]);
  assertEquals(steps(both(0, 0), both(1, 1)), ["all_to_all(dp tp) 0"]);
  assertEquals(steps(both(0, 0), both(0, 1)), ["all_to_all(tp) 0"]);
  assertEquals(steps(both(0, 0), columns), ["all_to_all(tp) 0", "all_gather(dp) 0"]);
  assertEquals(steps(both(0, 1), both(1, 0)), ["all_gather(dp) 0", "all_to_all(tp) 1", "slice_by_rank(dp) 1"]);
  // What lies further out, or is padded, does not move.
  assertEquals(steps(both(0, 0), layout(["dp", shard(1)])), ["all_gather(dp tp) 0", "slice_by_rank(dp) 1"]);
  assertEquals(steps(layout(["dp", padded]), layout(["dp", shard(1)])), ["all_gather(dp) 0", "slice_by_rank(dp) 1"]);
});

Deno.test("moving a cut sends a part's size times (n - 1) / n, one n-th of what gathering sends", () => {
  const mesh = new Mesh({ dp_shard: 1, tp: 4 }, 4), shape = [8, 12], bytes = 4 * 8 * 12;
  const sent = (to: Layout) => {
    const graph = traceGraph("g", [{ name: "s", kind: "sum", dtype: "f32", shape }], (builder) => {
      builder.assign("s", builder.input("x", { dtype: "f32", shape }));
    });
    const layouts = layoutsFor({ inputs: { x: layout(["tp", shard(0)]) }, states: { s: to } });
    return exchangesOf(partition(graph, mesh, layouts)).map(({ op, bytes }) => [op, bytes]);
  };
  assertEquals(sent(layout()), [["all_gather", bytes / 4 * 3]]);
  assertEquals(sent(layout(["tp", shard(1)])), [["all_to_all", bytes / 4 / 4 * 3]]);
});

Deno.test("padded slices are gathered and scattered at one go", () => {
  const from = layout(["tp", shard(0)], ["dp", padded], ["cp", padded]);
  assertEquals(steps(from, layout(["tp", shard(0)])), ["all_gather(dp cp) 0"]);
  assertEquals(steps(from, layout(["tp", shard(0)], ["dp", shard(0)])), ["all_gather(dp cp) 0", "slice_by_rank(dp) 0"]);
  const summands = layout(["tp", shard(0)], ["dp", partial()]);
  assertEquals(steps(summands, from), ["all_reduce(dp)", "slice_by_rank(dp cp) 0"]);
});

Deno.test("the last step ends in the layout that was asked for", () => {
  forSeeds(300, (seed) => {
    const random = new Random(seed), mesh = randomMesh(random);
    const [from, to] = [0, 1].map(() => randomLayout([4, 8], mesh, random, true));
    const last = conversion(from, to, 2).at(-1)?.to ?? from;
    const isMax = (l: Layout) => new Map([...l].filter(([, p]) => p.kind !== "partial" || p.by !== "max"));
    assertEquals(layoutText(isMax(last)), layoutText(isMax(to)));
  });
});

Deno.test("a value is the same in any layout that it is brought to", () => {
  forSeeds(1000, (seed) => {
    const random = new Random(seed), mesh = randomMesh(random), shape = [4, random.pick([3, 5, 8])];
    const graph = traceGraph("convert", [{ name: "s", kind: "sum", dtype: "f64", shape }], (builder) => {
      builder.assign("s", builder.input("x", { dtype: "f64", shape }));
    });
    const [x, s] = [0, 1].map(() => randomLayout(shape, mesh, random, true));
    assertSameOnMesh(graph, mesh, layoutsFor({ inputs: { x }, states: { s } }), seed);
  });
});
