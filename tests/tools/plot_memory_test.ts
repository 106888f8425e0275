import { assert, assertEquals } from "@std/assert";
import type { Allocation } from "../../graph/passes/memory.ts";
import { memorySvg, panelOf } from "../../tools/plot_memory.ts";

const value = (
  use: Allocation["use"],
  [offset, bytes]: [number, number],
  [first, last]: [number, number],
): Allocation => ({
  ...{ use, offset, bytes, first, last, held: last, label: "" },
});

/** Boxes of values: color, left edge, top, width, height. */
const boxes = (svg: string): string[][] =>
  [...svg.matchAll(/<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" fill="(#\w+)" stroke/g)]
    .map(([, x, y, width, height, color]) => [color, x, y, width, height]);

Deno.test("a value is as wide as it lives and as high as it is large, on one scale of bytes for all panels", () => {
  const svg = memorySvg("two", [
    {
      title: "large",
      nodes: 2,
      allocations: [value("kept", [64, 100], [0, 1]), value("transient", [164, 90], [1, 1])],
    },
    { title: "small", nodes: 4, allocations: [value("transient", [500, 19], [1, 2])] },
  ]);
  assertEquals(boxes(svg), [
    ["#d1570b", "70.0", "98.0", "874.0", "100.0"],
    ["#1f6feb", "507.0", "198.0", "437.0", "90.0"],
    ["#1f6feb", "288.5", "332.0", "437.0", "19.0"],
  ]);
  assert(!svg.includes("gathered parameters"), "a use that no value has is in the legend");
});

Deno.test("the picture of the book shows a plan in which values that live at the same time lie apart", () => {
  const { allocations, nodes } = panelOf("kept", "none");
  assert(allocations.length > 40 && nodes > 100);
  for (const [i, a] of allocations.entries()) {
    for (const b of allocations.slice(i + 1)) {
      const together = a.first <= b.last && b.first <= a.last;
      const apart = a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
      assert(!together || apart || a.bytes === 0 || b.bytes === 0, `${a.label} and ${b.label}`);
    }
  }
});
