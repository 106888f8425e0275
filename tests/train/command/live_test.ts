import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { view } from "../../../train/command/live.ts";
import { assertRefused, command, ended, spawn, tinyRun } from "./command_line.ts";

/** The lines of a run's file. */
const linesOf = (folder: string) =>
  Deno.readTextFileSync(`${folder}/out/metrics.jsonl`).trimEnd().split("\n").map((line) => JSON.parse(line));

/** Reads a process's output up to its page's address. */
async function addressOf({ stdout }: Deno.ChildProcess): Promise<{ address: string; rest: Promise<void> }> {
  const reader = stdout.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = "";;) {
    const { done, value } = await reader.read();
    assert(!done, text);
    const address = /http:\S+\//.exec(text += value)?.[0];
    if (address) {
      const drain = async () => {
        while (!(await reader.read()).done);
      };
      return { address, rest: drain() };
    }
  }
}

Deno.test("a run with a page says where it is, and leaves its plan, its texts and its end in the file", async () => {
  await using tiny = await tinyRun();
  const { code, out, errors } = await command(
    ...tiny.config,
    "--metrics.live",
    "--metrics.sample_freq=3",
    "--metrics.sample_tokens=3",
  );
  assertEquals([code, errors], [0, []]);
  assertMatch(out, /\n {2}live {4}http:\/\/127\.0\.0\.1:\d+\/[0-9a-f]{32}\/\n/);
  const lines = linesOf(tiny.folder), [{ run }] = lines;
  assertMatch(run.model, /^[\d,]+ parameters, 32 tokens per step/);
  assert(run.memory.arena > run.memory.parameters && run.memory.parameters > 0);
  assertEquals(lines.filter(({ sample }) => typeof sample === "string").map(({ step }) => step), [3]);
  assertEquals(lines.at(-1), { end: { step: 3 } });
});

Deno.test("a run that fails says so in its file", async () => {
  await using tiny = await tinyRun();
  const { code } = await command(...tiny.config, "--optimizer.lr=1e30", "--training.steps=20");
  const { end } = linesOf(tiny.folder).at(-1);
  assertEquals([code, typeof end.step], [1, "number"]);
  assertMatch(end.error, /^Step \d+ diverged: /);
});

Deno.test("a process serves its page while it trains, and a stopped run says by what", async () => {
  await using tiny = await tinyRun();
  await using process = spawn([...tiny.config, "--metrics.live", "--training.steps=1000000"]);
  const { address, rest } = await addressOf(process), page = await fetch(address);
  assertEquals([page.status, (await page.text()).startsWith("<!DOCTYPE html>")], [200, true]);
  process.kill("SIGINT");
  await rest;
  assertEquals((await process.status).code, 130);
  await process.stderr.cancel();
  assertEquals(linesOf(tiny.folder).at(-1).end.stopped, "SIGINT");
});

Deno.test("ranks tell what each has waited for, and the first one serves the page", async () => {
  await using tiny = await tinyRun();
  const ranks = ["--nproc=2", "--mesh=dp_shard=2", "--metrics.live", "--metrics.log_freq=2", "--training.steps=4"];
  const { code, out, error } = await ended(spawn([...tiny.config, ...ranks]));
  assertEquals([code, error], [0, ""]);
  assertMatch(out, /\[rank0\] {3}live {4}http:/);
  const reports = linesOf(tiny.folder).filter(({ ranks }) => ranks);
  assertEquals(reports.map(({ step }) => step), [1, 2, 4]);
  for (const { ranks } of reports) {
    for (const name of ["loading_ms", "native_ms", "memory_gib", "loss"]) assertEquals(ranks[name].length, 2, name);
  }
});

Deno.test("a page without a file of numbers, and a port that is taken, are refused", async () => {
  await using tiny = await tinyRun();
  assertRefused(
    await command(...tiny.config, "--metrics.live", "--metrics.jsonl_file="),
    "a file of numbers",
    "(live_without_file)",
  );
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const port = (taken.addr as Deno.NetAddr).port;
  assertRefused(
    await command(...tiny.config, "--metrics.live", `--metrics.live_port=${port}`),
    `port ${port}`,
    "(port_in_use)",
  );
});

Deno.test("view shows a folder until it is stopped, and refuses what is not there", async () => {
  await using tiny = await tinyRun();
  const { log, error } = console, out: string[] = [], stop = Promise.withResolvers<void>();
  [console.log, console.error] = [(text: string) => out.push(text), (text: string) => out.push(text)];
  try {
    const viewing = view([tiny.folder], () => stop.promise);
    const address = out[0].split("\n")[0];
    assertStringIncludes(await (await fetch(address)).text(), "<main");
    stop.resolve();
    assertEquals(await viewing, 0);
    assertEquals([await view([`${tiny.folder}/nowhere`]), await view(["--prot", "1"]), await view(["--help"])], [
      1,
      1,
      0,
    ]);
    assertMatch(
      out.slice(1).join("\n"),
      /error: There is no .*nowhere\n {2}expected.*\n {2}fix.*\nerror: view knows no --prot\n/,
    );
  } finally {
    Object.assign(console, { log, error });
  }
});
