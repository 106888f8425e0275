import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { ConfigError } from "../../../train/config/config.ts";
import { RunFolder } from "../../../train/command/run_folder.ts";
import { temporaryFolder } from "../../data/fixture.ts";

/** The file system has locks here. */
const warn = (text: string) => assert(false, text);

const names = (folder: string) => [...Deno.readDirSync(folder)].map(({ name }) => name).sort();

Deno.test("a folder has one run at a time, and the next is told which", async () => {
  await using temporary = await temporaryFolder();
  const path = `${temporary.path}/out`, before = new Date().toISOString();
  {
    using _first = RunFolder.open(path, warn);
    const { message } = assertThrows(() => RunFolder.open(path, warn), ConfigError);
    const [, pid, since] = /: process (\d+)(?: on \S+)?, since (\S+)\n/.exec(message)!;
    assertEquals(Number(pid), Deno.pid);
    assert(since >= before && since <= new Date().toISOString(), since);
    assertMatch(
      message,
      /^Another run writes into the dump folder .*\n {2}expected: .*\n {2}fix: .* --job\.dump_folder .*\/out\/NAME, /,
    );
    using _other = RunFolder.open(`${path}/NAME`, warn);
  }
  using _second = RunFolder.open(path, warn);
});

Deno.test("the lock of a process ends with it, though its file stays", async () => {
  await using temporary = await temporaryFolder();
  const module = new URL("../../../train/command/run_folder.ts", import.meta.url);
  const code = `import { RunFolder } from "${module}"; RunFolder.open(Deno.args[0], console.log); console.log("locked");
    setInterval(() => {}, 1000);`;
  const args = ["eval", "--ext=ts", code, temporary.path];
  const child = new Deno.Command(Deno.execPath(), { args, stdout: "piped", stderr: "inherit" }).spawn();
  const reader = child.stdout.getReader();
  assertEquals(new TextDecoder().decode((await reader.read()).value), "locked\n");
  assertThrows(() => RunFolder.open(temporary.path, warn), ConfigError, `: process ${child.pid}`);
  child.kill("SIGKILL");
  await child.status;
  await reader.cancel();
  assertEquals(names(temporary.path), ["run.lock"]);
  using _next = RunFolder.open(temporary.path, warn);
});

Deno.test("a folder that was made for a run which leaves nothing is gone with it, one that was there stays", async () => {
  await using temporary = await temporaryFolder();
  RunFolder.open(`${temporary.path}/a/b`, warn)[Symbol.dispose]();
  assertEquals(names(temporary.path), []);
  RunFolder.open(temporary.path, warn)[Symbol.dispose]();
  assertEquals(names(temporary.path), []);
  const folder = RunFolder.open(`${temporary.path}/a/b`, warn);
  await Deno.writeTextFile(`${folder.path}/metrics.jsonl`, "{}");
  folder[Symbol.dispose]();
  assertEquals(names(`${temporary.path}/a/b`), ["metrics.jsonl"]);
});

Deno.test("what an earlier run left keeps its lines under the next number, and what is empty makes no number", async () => {
  await using temporary = await temporaryFolder();
  using folder = RunFolder.open(temporary.path, warn);
  const path = (name: string) => `${temporary.path}/${name}`;
  assertEquals(folder.keepEarlier("m.jsonl"), undefined);
  await Deno.writeTextFile(path("m.jsonl"), "");
  await Deno.mkdir(path("traces"));
  assertEquals([folder.keepEarlier("m.jsonl"), folder.keepEarlier("traces")], [undefined, undefined]);
  for (const [text, number] of [["one", 1], ["two", 2]] as const) {
    await Deno.writeTextFile(path("m.jsonl"), text);
    assertEquals(folder.keepEarlier("m.jsonl"), path(`m.${number}.jsonl`));
    assertEquals(await Deno.readTextFile(path(`m.${number}.jsonl`)), text);
  }
  await Deno.writeTextFile(path("m.40.jsonl"), "forty");
  await Deno.writeTextFile(path("m.jsonl"), "three");
  assertEquals(folder.keepEarlier("m.jsonl"), path("m.41.jsonl"));
  await Deno.writeTextFile(path("traces/trace.json"), "{}");
  assertEquals(folder.keepEarlier("traces"), path("traces.1"));
  assertEquals(names(temporary.path), ["m.1.jsonl", "m.2.jsonl", "m.40.jsonl", "m.41.jsonl", "run.lock", "traces.1"]);
});

Deno.test("a folder that cannot be made is refused with the reason", async () => {
  await using temporary = await temporaryFolder();
  await Deno.writeTextFile(`${temporary.path}/file`, "");
  for (const path of [`${temporary.path}/file`, `${temporary.path}/file/out`]) {
    const { problems } = assertThrows(() => RunFolder.open(path, warn), ConfigError, `dump folder ${path}: `);
    assertEquals(problems.map(({ code }) => code), ["cannot_write"]);
  }
  assertThrows(() => RunFolder.open(`${temporary.path}/file`, warn), ConfigError, "/file: it is a file\n");
});
