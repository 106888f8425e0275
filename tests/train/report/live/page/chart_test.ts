import { assert, assertEquals } from "@std/assert";
import {
  backToFront,
  decimate,
  extent,
  logTicks,
  lowerBound,
  ticks,
} from "../../../../../train/report/live/page/chart.js";

const upTo = (n: number) => Array.from({ length: n }, (_, i) => i);

Deno.test("many points become two a pixel, and keep every peak", () => {
  const xs = upTo(10_000), ys = xs.map((x) => x === 4321 ? 99 : x === 8765 ? -99 : Math.sin(x));
  const points = decimate(xs, ys, [0, 9999], 500);
  assert(points.length <= 1002, `${points.length}`);
  assert(points.some(([x, y]) => x === 4321 && y === 99) && points.some(([x, y]) => x === 8765 && y === -99));
  assertEquals(points.map(([x]) => x), points.map(([x]) => x).toSorted((a, b) => a - b));
  assertEquals(decimate([1, 2, 3], [4, 5, 6], [1, 3], 500), [[1, 4], [2, 5], [3, 6]]);
});

Deno.test("what cannot be drawn is left out of many points", () => {
  const xs = upTo(5000), points = decimate(xs, xs.map((x) => x % 2 ? null : x), [0, 4999], 100);
  assertEquals(points.filter(([, y]) => y === null), []);
});

Deno.test("an axis spans what is drawn, but for a few values that are out of all proportion", () => {
  const flat = (n: number, peak: number) => ({ x: upTo(n), y: upTo(n).map((i) => i === 7 ? peak : 5 + i / n) });
  const [low, high] = extent([flat(1000, 1000)], false);
  assert(low > 4.8 && high < 7, `${low} to ${high}`);
  assert(extent([flat(100, 1000)], false)[1] > 1000);
  assert(extent([flat(100, 5), { x: [0, 1], y: [20, 20], isGuide: true }], false)[1] > 20);
  assertEquals(extent([{ x: [], y: [] }], false), [0, 1]);
});

Deno.test("the first run's line is drawn over those of others, and no faint one over a line that is not", () => {
  const [first, faint, second] = [{ label: "first" }, { label: "faint", faint: true }, { label: "second" }];
  assertEquals(backToFront([faint, first, second]), [faint, second, first]);
});

Deno.test("values that are the same but for rounding have an axis with few marks", () => {
  const [low, high] = extent([{ x: [1], y: [3] }, { x: [1], y: [3 + 4e-16] }], false);
  assert(high - low > 0.1 && ticks(low, high, 4).length <= 6, `${low} to ${high}`);
});

Deno.test("marks are round, within the axis, and as many as there is room for", () => {
  assertEquals(ticks(0, 10_000, 5), [0, 2000, 4000, 6000, 8000, 10_000]);
  assertEquals(logTicks(0.9, 60), [1, 2, 5, 10, 20, 50]);
  assertEquals(lowerBound([1, 3, 5], 3), 1);
});
