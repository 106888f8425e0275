import { assertAlmostEquals, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import {
  type Case,
  median,
  numberAfter,
  parseRun,
  type Run,
  sizeNamed,
  summarise,
  table,
  withFigures,
} from "../../bench/report.ts";

const debug = (...contestants: [string, Run[]][]): Case => ({
  size: "debug",
  dtype: "f32",
  contestants: contestants.map(([name, runs]) => ({ name, runs })),
});
const rates = (...values: number[]): Run[] => values.map((tokensPerSecond) => ({ tokensPerSecond }));

Deno.test("a result line is read whatever stands around it, in any order", () => {
  const output =
    "building\ntokens/s 1 best 2\nnoise\ntokens/s 1234.5 best 1300 peak GB 0.48 compile s 2.5 loss 7.6 version a 1, b 2 \n\n";
  assertEquals(parseRun(output), {
    tokensPerSecond: 1234.5,
    best: 1300,
    peakGb: 0.48,
    compileSeconds: 2.5,
    version: "a 1, b 2",
  });
  assertEquals(parseRun("peak GB 2.5 | tokens/s 1e3").peakGb, 2.5);
  assertEquals(parseRun("peak GB 2.5 | tokens/s 1e3").tokensPerSecond, 1000);
});

Deno.test("what a result line leaves out is undefined, not zero", () => {
  const { tokensPerSecond, ...rest } = parseRun("tokens/s 7");
  assertEquals(tokensPerSecond, 7);
  assertEquals(Object.values(rest).filter((value) => value !== undefined), []);
});

Deno.test("a number is found behind its label on any line", () => {
  assertEquals(numberAfter("product GF/s", "starting\nproduct GF/s 320.5\n"), 320.5);
  assertEquals(numberAfter("product GF/s", "product GF/s fast"), undefined);
});

Deno.test("output without a usable rate is refused with what was printed", () => {
  assertThrows(() => parseRun("out of memory"), Error, "got: out of memory");
  assertThrows(() => parseRun(""), Error, "got: nothing");
  assertThrows(() => parseRun("tokens/s 0"), Error, "N above 0");
  assertThrows(() => parseRun("tokens/s 12abc"), Error, "Not a rate");
});

Deno.test("the median is the middle value or the mean of the middle two, and leaves its argument alone", () => {
  const values = [3, 1, 2];
  assertEquals(median(values), 2);
  assertEquals(values, [3, 1, 2]);
  assertEquals(median([10, 9, 2, 1]), 5.5);
  assertThrows(() => median([]), RangeError);
});

Deno.test("an unknown size is refused with the known ones", () => {
  assertThrows(() => sizeNamed("huge"), RangeError, "debug, debug2k, mid, small");
  assertThrows(() => sizeNamed("toString"), RangeError, "toString");
});

Deno.test("ratios are taken within a round, so load that slows one round for all does not move them", () => {
  const [ours, peer] = summarise(debug(["ours", rates(2000, 200, 1000)], ["peer", rates(1000, 100, 800)]));
  assertEquals([ours.median, ours.ratio, peer.median, peer.ratio], [1000, 1, 800, 2]);
  const { best, peakGb, share, firstStepSeconds, compileSeconds } = peer;
  assertEquals([best, peakGb, share, firstStepSeconds, compileSeconds], Array(5).fill(undefined));
});

// debug: 6 x (6 x 852480 + 256 + 2048 x 256) + 12 x 6 x 256 x 512 per token
const gflops = (33_836_544 + 9_437_184) / 1e9;

Deno.test("memory and best are the largest of the rounds; rates, shares and times their medians", () => {
  const [summary] = summarise(debug(["ours", [
    {
      tokensPerSecond: 1000,
      best: 1100,
      peakGb: 0.5,
      productGflops: 2000 * gflops,
      firstStepSeconds: 3,
      compileSeconds: 0.5,
    },
    {
      tokensPerSecond: 1000,
      best: 1300,
      peakGb: 0.4,
      productGflops: 1250 * gflops,
      firstStepSeconds: 1,
      compileSeconds: 0.25,
    },
    { tokensPerSecond: 1000, productGflops: 1000 * gflops, firstStepSeconds: 2 },
  ]]));
  assertEquals([summary.best, summary.peakGb, summary.firstStepSeconds, summary.compileSeconds], [1300, 0.5, 2, 0.375]);
  assertAlmostEquals(summary.share!, 0.8, 1e-12);
  assertAlmostEquals(summary.gflops, 1000 * gflops, 1e-9);
});

Deno.test("contestants that ran a different number of rounds are not compared", () => {
  assertThrows(() => summarise(debug(["a", rates(1, 1)], ["b", rates(1)])), RangeError, '"b" ran 1');
});

const measured = {
  tokensPerSecond: 5000.4,
  best: 5100,
  peakGb: 0.5,
  productGflops: 5000.4 * gflops / 0.676,
  firstStepSeconds: 1.25,
  compileSeconds: 0.31,
};
const cases = [
  debug(["ours", [measured]], ["a longer peer", rates(999)]),
  { ...debug(["ours", [measured]]), dtype: "bf16" },
];
const markdown = [
  "| size       |               | tokens/s | best | ours is | share | GFLOP/s | peak GB | first step s | compile s |",
  "| ---------- | ------------- | -------: | ---: | ------: | ----: | ------: | ------: | -----------: | --------: |",
  "| debug f32  | ours          |     5000 | 5100 |         |  0.68 |     216 |    0.50 |          1.3 |       0.3 |",
  "|            | a longer peer |      999 |    - |  5.01 x |     - |      43 |       - |            - |         - |",
  "| debug bf16 | ours          |     5000 | 5100 |         |  0.68 |     216 |    0.50 |          1.3 |       0.3 |",
].join("\n");

Deno.test("the table is Markdown with its columns aligned, and a size stands where it begins", () => {
  assertEquals(table(cases), markdown);
});

Deno.test("figures in a README replace those between its markers, with the machine and what was run", () => {
  const results = { date: "2030-01-02T03:04:05Z", machine: "a CPU, 2 cores", rounds: 3, steps: 5, cases };
  const withVersion = [debug(["ours", [{ ...measured, version: "libtitan 1" }]], ["a longer peer", rates(999)])];
  const [begin, end] = ["<!-- figures: `deno task bench --readme` writes them -->", "<!-- end of figures -->"];
  const readme = `# Bench\n\n${begin}\nold\n${end}\n\nmore\n`;
  const once = withFigures(readme, results);
  assertEquals(once.split(begin)[0], "# Bench\n\n");
  assertEquals(once.split(end)[1], "\n\nmore\n");
  assertStringIncludes(once, `\n\n${markdown}\n\n![`);
  assertStringIncludes(once, "- Measured on 2030-01-02\n- a CPU, 2 cores\n- 3 rounds of 5 steps\n");
  assertEquals(withFigures(once, results), once);
  assertStringIncludes(withFigures(once, { ...results, cases: withVersion }), "\n- ours: libtitan 1\n\n|");
  assertThrows(() => withFigures("# Bench\n", results), Error, begin);
});
