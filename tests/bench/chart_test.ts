import { assertEquals, assertStringIncludes } from "@std/assert";
import { speedSvg } from "../../bench/chart.ts";
import type { Case } from "../../bench/report.ts";

const runs = (tokensPerSecond: number, best?: number) => [{ tokensPerSecond, best }];
const cases: Case[] = [
  {
    size: "debug",
    dtype: "f32",
    contestants: [{ name: "ours", runs: runs(400, 500) }, { name: "b", runs: runs(100) }],
  },
  { size: "debug", dtype: "bf16", contestants: [{ name: "ours", runs: runs(500) }, { name: "b", runs: runs(250) }] },
  { size: "small", dtype: "f32", contestants: [{ name: "ours", runs: runs(10) }, { name: "b", runs: runs(20) }] },
];
const svg = speedSvg(cases);
const heights = [...svg.matchAll(/<rect x="[\d.]+" y="[\d.]+" width="[\d.]+" height="([\d.]+)"/g)].map((m) =>
  Number(m[1])
)
  .filter((height) => height !== 12);

Deno.test("bars are as long as rates, on a scale of each size's own", () => {
  const whole = heights[2]; // 500 tokens per second, the most of its panel
  assertEquals(heights.map((height) => (height / whole).toFixed(2)), ["0.80", "0.20", "1.00", "0.50", "0.50", "1.00"]);
});

Deno.test("every bar has its rate, and those of others how much faster the first one is", () => {
  for (const rate of [400, 100, 500, 250, 10, 20]) assertStringIncludes(svg, `>${rate}</text>`);
  for (const ratio of ["4.00 x", "2.00 x", "0.50 x"]) assertStringIncludes(svg, `>${ratio}</text>`);
  for (const name of ["debug", "small", "f32", "bf16", "ours", "b"]) assertStringIncludes(svg, `>${name}</text>`);
  assertEquals(/NaN|Infinity|undefined/.test(svg), false);
});

Deno.test("names are text, whatever they hold", () => {
  const [first] = cases;
  const named = { ...first, contestants: [{ name: "a < b & c", runs: runs(1) }] };
  assertStringIncludes(speedSvg([named]), ">a &lt; b &amp; c</text>");
});
