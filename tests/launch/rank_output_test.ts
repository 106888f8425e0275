import { assertEquals } from "@std/assert";
import { causeOf, Errors, Lines, prefixed } from "../../launch/rank_output.ts";

Deno.test("bytes become whole lines, wherever they are cut", () => {
  const text = "eins\nzwölf\n\nletzte", bytes = new TextEncoder().encode(text);
  for (let cut = 0; cut <= bytes.length; cut++) {
    const lines = new Lines();
    const found = [...lines.add(bytes.subarray(0, cut)), ...lines.add(bytes.subarray(cut)), ...lines.end()];
    assertEquals(found, text.split("\n"), `cut at ${cut}`);
    assertEquals(lines.end(), []);
  }
});

Deno.test("every line of a text says whose it is", () => {
  assertEquals(prefixed("a\n\nb", 2), "[rank2] a\n[rank2] \n[rank2] b");
});

Deno.test("the first rank that did not end well ended the job", () => {
  const causeIn = (ends: readonly string[]) => ends.map((end) => causeOf(end)).find((cause) => cause !== undefined);
  assertEquals(causeIn(["2 0", "1 137", "0 143"]), { rank: 1, code: 137 });
  assertEquals(causeIn(["12 3"]), { rank: 12, code: 3 });
  assertEquals(causeOf("1 137", 4), { rank: 5, code: 137 }); // on a host whose first rank is 4
  assertEquals([causeIn([]), causeIn(["0 0", "1 0"])], [undefined, undefined]);
});

/** What is printed of a job whose ranks said this on stderr, a line each. */
function report(said: readonly (readonly [rank: number, line: string])[], cause?: Parameters<Errors["report"]>[0]) {
  const errors = new Errors();
  for (const [rank, line] of said) errors.add(rank, line);
  return errors.report(cause);
}

Deno.test("what is no error may be printed at once; what follows an error belongs to it", () => {
  const errors = new Errors();
  assertEquals([errors.add(0, "a warning"), errors.any], [false, false]);
  assertEquals([errors.add(0, "error: no"), errors.add(0, "  fix: it"), errors.any], [true, true, true]);
  assertEquals([errors.add(1, "a warning"), errors.add(1, "[rank1] error: no")], [false, true]);
});

Deno.test("the error that began it comes first and in full, though another was quicker to say so", () => {
  const late = "error: step 5, all_reduce 1 cannot end: rank 1 gave up: the disk is full";
  assertEquals(
    report([[0, late], [0, "  fix: x"], [1, "[rank1] error: the disk is full"], [1, "[rank1]   fix: space"]]),
    [
      "[rank1] error: the disk is full\n[rank1]   fix: space",
      `[rank0] then ${late}`,
    ],
  );
  const [, short] = report([[1, "error: a"], [0, `error: cannot end: rank 1 ${"x".repeat(300)}`]]);
  assertEquals(short.length, "[rank0] then ".length + 160 + 3);
});

Deno.test("of several that began it, the one that ended first comes first, else the quickest", () => {
  const said = [[2, "error: waited for rank 1"], [0, "error: waited for rank 1 too"]] as const;
  assertEquals(report(said)[0], "[rank2] error: waited for rank 1");
  assertEquals(report(said, { rank: 0, code: 1 })[0], "[rank0] error: waited for rank 1 too");
});

Deno.test("an error that all ranks have is told once", () => {
  assertEquals(report([[1, "error: ranks differ"], [0, "error: ranks differ"], [2, "error: ranks differ"]]), [
    "[rank1] error: ranks differ",
    "The same on ranks 0, 2",
  ]);
});

Deno.test("a rank that was killed says nothing, so it is said for it", () => {
  const [first, second] = report([[0, "error: all_reduce 1 cannot end: rank 1 has ended without a word"]], {
    rank: 1,
    code: 137,
  });
  assertEquals(first.split("\n")[0], "[rank1] error: this process was killed by signal 9");
  assertEquals(second.startsWith("[rank0] then error: all_reduce 1 cannot end"), true);
  assertEquals(report([], { rank: 3, code: 7 }), [
    "[rank3] error: this process ended with exit code 7, without a word   (rank_ended)",
  ]);
  assertEquals(report([]), []);
});
