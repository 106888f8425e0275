import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { median, parsePeer, parseRun, sizeNamed, summarise, table } from "../../bench/report.ts";

Deno.test("a result line is read whatever stands around it, in any order", () => {
  const output =
    "building\ntokens/s 1 best 2\nnoise\ntokens/s 1234.5 best 1300 peak GB 0.48 product GF/s 320 loss 7.6\n\n";
  assertEquals(parseRun(output), { tokensPerSecond: 1234.5, best: 1300, peakGb: 0.48, productGflops: 320 });
  assertEquals(parseRun("peak GB 2.5 | tokens/s 1e3").peakGb, 2.5);
  assertEquals(parseRun("peak GB 2.5 | tokens/s 1e3").tokensPerSecond, 1000);
});

Deno.test("what a result line leaves out is undefined, not zero", () => {
  assertEquals(parseRun("tokens/s 7"), {
    tokensPerSecond: 7,
    best: undefined,
    peakGb: undefined,
    productGflops: undefined,
  });
});

Deno.test("output without a usable rate is refused with what was printed", () => {
  assertThrows(() => parseRun("out of memory"), Error, "got: out of memory");
  assertThrows(() => parseRun(""), Error, "got: nothing");
  assertThrows(() => parseRun("tokens/s 0"), Error, "N above 0");
  assertThrows(() => parseRun("tokens/s 12abc"), Error, "Not a rate");
});

Deno.test("a peer is a name and a command that may itself contain an equals sign", () => {
  assertEquals(parsePeer("mine=X=1 ./train --a=b"), { name: "mine", command: "X=1 ./train --a=b" });
  for (const text of ["mine", "=./train", "mine=", " =x"]) assertThrows(() => parsePeer(text), Error, "name=COMMAND");
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
  const size = sizeNamed("debug");
  const [ours, peer] = summarise(
    new Map([
      ["ours", [{ tokensPerSecond: 2000 }, { tokensPerSecond: 200 }, { tokensPerSecond: 1000 }]],
      ["peer", [{ tokensPerSecond: 1000 }, { tokensPerSecond: 100 }, { tokensPerSecond: 800 }]],
    ]),
    size,
  );
  assertEquals([ours.median, ours.ratio, peer.median, peer.ratio], [1000, 1, 800, 2]);
  assertEquals([peer.best, peer.peakGb, peer.productGflops, peer.share], [undefined, undefined, undefined, undefined]);
});

// debug: 6 x (6 x 852480 + 256 + 2048 x 256) + 12 x 6 x 256 x 512 per token
const gflops = (33_836_544 + 9_437_184) / 1e9;

Deno.test("memory and best are the largest of the rounds, the share of a product its median", () => {
  const size = sizeNamed("debug");
  const [summary] = summarise(
    new Map([["ours", [
      { tokensPerSecond: 1000, best: 1100, peakGb: 0.5, productGflops: 2000 * gflops },
      { tokensPerSecond: 1000, best: 1300, peakGb: 0.4, productGflops: 1250 * gflops },
      { tokensPerSecond: 1000, productGflops: 1000 * gflops },
    ]]]),
    size,
  );
  assertEquals([summary.best, summary.peakGb, summary.productGflops], [1300, 0.5, 1250 * gflops]);
  assertAlmostEquals(summary.share!, 0.8, 1e-12);
});

Deno.test("contestants that ran a different number of rounds are not compared", () => {
  const run = { tokensPerSecond: 1 };
  assertThrows(
    () => summarise(new Map([["a", [run, run]], ["b", [run]]]), sizeNamed("debug")),
    RangeError,
    '"b" ran 1',
  );
});

Deno.test("the table is Markdown with its columns aligned", () => {
  const text = table([
    { name: "ours", median: 5000.4, best: 5100, peakGb: 0.5, productGflops: 320, share: 0.676, ratio: 1 },
    { name: "a longer peer", median: 999, ratio: 5.005 },
  ]);
  assertEquals(
    text,
    [
      "|               | tokens/s | best | peak GB | product GF/s | share | ours is |",
      "| ------------- | -------: | ---: | ------: | -----------: | ----: | ------: |",
      "| ours          |     5000 | 5100 |    0.50 |          320 |  0.68 |         |",
      "| a longer peer |      999 |    - |       - |            - |     - |  5.00 x |",
    ].join("\n"),
  );
});
