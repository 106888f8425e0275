import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { crc32c, EventFile, eventFolder } from "../../../train/report/tensorboard.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { readEvents, readFolder } from "./event_reader.ts";
import { smallDisk } from "./small_disk.ts";

/** Nothing is to be warned of. */
const warn = (text: string) => assert(false, text);

Deno.test("checksums are those that RFC 3720 lists for CRC-32C", () => {
  const ascending = Uint8Array.from({ length: 32 }, (_, i) => i);
  assertEquals(crc32c(new Uint8Array(32)), 0x8a9136aa);
  assertEquals(crc32c(new Uint8Array(32).fill(255)), 0x62a8ab43);
  assertEquals([crc32c(ascending), crc32c(ascending.toReversed())], [0x46dd794e, 0x113fdb5c]);
});

Deno.test("a file begins with its version and its first step, and has each report at once: step, time, tags and values as f32", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/new/tb`, before = Date.now() / 1000;
  using file = new EventFile(path, { firstStep: 1, warn });
  file.write({ step: 1, "loss_metrics/global_avg_loss": 7.1, "throughput(tps)": 4096, "tflops": null });
  assertEquals(readFolder(path).length, 3);
  file.write({ step: 5_000_000_000, "loss_metrics/global_avg_loss": NaN, "lr": 1e-3 });
  const [version, start, ...reports] = readFolder(path);
  assertEquals([version.fileVersion, start.isStart, start.step], ["brain.Event:2", true, 1]);
  assertEquals(reports.map(({ step, values }) => ({ step, values })), [
    { step: 1, values: { "loss_metrics/global_avg_loss": Math.fround(7.1), "throughput(tps)": 4096 } },
    { step: 5_000_000_000, values: { "loss_metrics/global_avg_loss": NaN, "lr": Math.fround(1e-3) } },
  ]);
  for (const { wallTime } of [version, start, ...reports]) {
    assert(wallTime >= before && wallTime <= Date.now() / 1000, `${wallTime}`);
  }
  const [{ name }] = Deno.readDirSync(path);
  assertMatch(name, new RegExp(`^events\\.out\\.tfevents\\.\\d{10}\\.${Deno.pid}$`));
});

Deno.test("a run that goes on has a new file behind the others of its folder, also within their second", async () => {
  await using folder = await temporaryFolder();
  for (const firstStep of [1, 11, 21]) {
    using file = new EventFile(folder.path, { firstStep, warn });
    file.write({ step: firstStep, lr: 1 });
  }
  assertEquals([...Deno.readDirSync(folder.path)].length, 3);
  const events = readFolder(folder.path);
  assertEquals(events.filter(({ isStart }) => isStart).map(({ step }) => step), [1, 11, 21]);
  assertEquals(events.filter(({ values }) => values).map(({ step }) => step), [1, 11, 21]);
});

Deno.test("a run's folder is named for its minute, another run of that minute gets a number, and one that goes on the latest", async () => {
  await using folder = await temporaryFolder();
  const minute = new Date(2026, 1, 3, 4, 5, 59), earlier = new Date(2026, 1, 3, 4, 4);
  const names: string[] = [];
  for (let run = 1; run <= 11; run++) {
    names.push(eventFolder(folder.path, false, minute));
    await Deno.mkdir(`${folder.path}/${names.at(-1)}`);
  }
  assertEquals([names[0], names[1], names[10]], ["20260203-0405", "20260203-0405.2", "20260203-0405.11"]);
  await Deno.mkdir(`${folder.path}/mine`);
  assertEquals(eventFolder(folder.path, true, earlier), "20260203-0405.11");
  assertEquals(eventFolder(folder.path, false, earlier), "20260203-0404");
  assertEquals(eventFolder(`${folder.path}/nothing`, true, earlier), "20260203-0404");
  await Deno.writeTextFile(`${folder.path}/file`, "");
  assertThrows(() => eventFolder(`${folder.path}/file`, false), Error, "Not a directory");
});

Deno.test("a full disk tears no report: what did not fit comes once there is room, and the file can be read throughout", async (t) => {
  await using folder = await temporaryFolder();
  await using disk = await smallDisk(folder.path, 64);
  await t.step({
    name: "on a disk of 64 KiB",
    ignore: disk === undefined, // needs root
    fn: async () => {
      const warnings: string[] = [], path = `${folder.path}/tb`;
      await Deno.writeFile(`${folder.path}/other`, new Uint8Array(24 * 1024));
      using file = new EventFile(path, { firstStep: 1, warn: (text) => warnings.push(text) });
      const [{ name }] = Deno.readDirSync(path),
        steps = () =>
          readEvents(Deno.readFileSync(`${path}/${name}`)).filter(({ values }) => values).map(({ step }) => step);
      for (let step = 1; step <= 60; step++) file.write({ step, ["x".repeat(1000)]: step });
      assert(steps().length > 20 && steps().length < 60, `${steps().length} reports`);
      assertEquals(warnings.length, 1);
      assertMatch(warnings[0], /^Cannot write .*\/tb\/events\.out\.tfevents\..*: No space left .*; the run goes on$/);
      await Deno.remove(`${folder.path}/other`);
      file.write({ step: 61, lr: 1 });
      assertEquals(steps(), Array.from({ length: 61 }, (_, i) => i + 1));
      assertMatch(warnings[1], / can be written again, and has all that came meanwhile$/);
    },
  });
});
