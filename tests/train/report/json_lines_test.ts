import { assertEquals } from "@std/assert";
import { JsonLines, parseJsonLines } from "../../../train/report/json_lines.ts";
import { temporaryFolder } from "../../data/fixture.ts";

const lines = async (path: string) => (await Deno.readTextFile(path)).trimEnd().split("\n").map((l) => JSON.parse(l));

/** Notes warnings. */
function listener() {
  const warnings: string[] = [];
  return { warnings, warn: (text: string) => void warnings.push(text) };
}

Deno.test("each line is in the file at once, and a run that goes on in it begins with a line of its own", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/new/folder/metrics.jsonl`, { warnings, warn } = listener();
  new JsonLines(path, { seed: 0 }, { warn }).write({ step: 1 });
  assertEquals(await lines(path), [{ run: { seed: 0 } }, { step: 1 }]);
  new JsonLines(path, { seed: 1 }, { warn }).write({ step: 2 });
  assertEquals(await lines(path), [{ run: { seed: 0 } }, { step: 1 }, { run: { seed: 1 } }, { step: 2 }]);
  assertEquals(warnings, []);
});

Deno.test("a file whose last line was torn is gone on with on a line of its own", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/metrics.jsonl`, { warn } = listener();
  await Deno.writeTextFile(path, '{"step":1}\n{"step":');
  new JsonLines(path, {}, { warn }).write({ step: 2 });
  assertEquals(await Deno.readTextFile(path), '{"step":1}\n{"step":\n{"run":{}}\n{"step":2}\n');
});

Deno.test("lines that hold no object are left out, which one warning tells with file and line", () => {
  const { warnings, warn } = listener();
  assertEquals(parseJsonLines('{"a":1}\n{"b":\n\n{"c":3}', "out/m.jsonl", warn), [{ a: 1 }, { c: 3 }]);
  assertEquals(warnings, ["warning: out/m.jsonl:2 is no line of JSON and is left out"]);
  assertEquals(parseJsonLines('5\n{"a":1}\n[]\nnull\n', "m.jsonl", warn), [{ a: 1 }]);
  assertEquals(
    warnings[1],
    "warning: m.jsonl:1 is no line of JSON and is left out (nor 2 more, the last at 4)",
  );
  assertEquals([parseJsonLines("", "m.jsonl", warn), warnings.length], [[], 2]);
});
