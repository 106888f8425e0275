import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { RecordFile } from "../../../train/report/record_file.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { smallDisk } from "./small_disk.ts";

const line = (text: string) => new TextEncoder().encode(`${text}\n`);
const lines = async (path: string) => (await Deno.readTextFile(path)).trimEnd().split("\n");

/** A file of lines that needs nothing before them. */
function fileOf(path: string, first: string, warn: (text: string) => void) {
  return new RecordFile(path, line(first), { unit: "lines", before: () => new Uint8Array(), warn });
}

/** Notes warnings. */
function listener() {
  const warnings: string[] = [];
  return { warnings, warn: (text: string) => void warnings.push(text) };
}

Deno.test("what has to stand before a record is asked for at each one, by the file as it is", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/numbers`, { warn } = listener();
  const before = (_: Deno.FsFile, size: number) => size === 0 ? line("head") : new Uint8Array();
  const file = new RecordFile(path, line("0"), { unit: "lines", before, warn });
  file.write(line("1"));
  await Deno.rename(path, `${path}.away`);
  file.write(line("2"));
  assertEquals([await lines(`${path}.away`), await lines(path)], [["head", "0", "1"], ["head", "2"]]);
});

Deno.test("a file that cannot be written any more is told once, and what it missed comes when it can be", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/out/numbers`, { warnings, warn } = listener();
  const file = fileOf(path, "0", warn);
  file.write(line("1"));
  await Deno.rename(`${folder.path}/out`, `${folder.path}/away`);
  for (const text of ["2", "3"]) file.write(line(text));
  assertEquals(warnings.length, 1);
  assertMatch(warnings[0], /^Cannot write .*\/out\/numbers: .*; the run goes on$/);
  await Deno.rename(`${folder.path}/away`, `${folder.path}/out`);
  file.write(line("4"));
  assertEquals(warnings.slice(1), [`${path} can be written again, and has all that came meanwhile`]);
  assertEquals(await lines(path), ["0", "1", "2", "3", "4"]);
});

Deno.test("at its end a run writes what it kept, or says how many lines are lost", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/out/numbers`, { warnings, warn } = listener();
  for (const isBack of [true, false]) {
    {
      using file = fileOf(path, "0", warn);
      await Deno.rename(`${folder.path}/out`, `${folder.path}/away`);
      for (const text of ["1", "2"]) file.write(line(text));
      if (isBack) await Deno.rename(`${folder.path}/away`, `${folder.path}/out`);
    }
    if (isBack) assertEquals(await lines(path), ["0", "1", "2"]);
  }
  assertEquals(warnings.length, 3); // each that it cannot be written, and the end of the second
  assertMatch(warnings[2], /^The last 2 lines of .*\/out\/numbers are lost, as it cannot be written: /);
});

Deno.test("a full disk tears no record and lets no run start; records that did not fit come once there is room", async (t) => {
  await using folder = await temporaryFolder();
  await using disk = await smallDisk(folder.path, 64);
  await t.step({
    name: "on a disk of 64 KiB",
    ignore: disk === undefined, // needs root
    fn: async () => {
      const path = `${folder.path}/numbers`, { warnings, warn } = listener(), text = "x".repeat(1000);
      await Deno.writeFile(`${folder.path}/other`, new Uint8Array(24 * 1024));
      const file = fileOf(path, "0", warn);
      for (let step = 1; step <= 60; step++) file.write(line(`${step} ${text}`));
      const whole = await lines(path);
      for (const one of whole.slice(1)) assertMatch(one, /^\d+ x{1000}$/);
      assertEquals([warnings.length, (await Deno.readTextFile(path)).endsWith("\n")], [1, true]);
      assertEquals(whole.length > 20 && whole.length < 60, true, `${whole.length} lines`);
      assertThrows(() => fileOf(`${folder.path}/late`, text, warn), Error, "No space left");
      await Deno.remove(`${folder.path}/other`);
      file.write(line("61"));
      assertEquals((await lines(path)).map((one) => parseInt(one)), Array.from({ length: 62 }, (_, i) => i));
      assertEquals(warnings.length, 2);
    },
  });
});
