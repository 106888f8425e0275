import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { library } from "../../../ffi/library.ts";
import type { StopSignal } from "../../../launch/stop.ts";
import { generateCommand, statisticsText } from "../../../train/command/generate.ts";
import { generate } from "../../../train/generate/generate.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { testRanks } from "../../native/mpirun.ts";
import { sample, smallCheckpoint } from "../weights/fixture.ts";

library(); // opened here: inside a test the sanitizer would call it a leak

/** Runs the command; `stopAt` sends Ctrl-C when so much has been written. */
async function run(args: string[], { lines = [], stopAt = Infinity }: { lines?: string[]; stopAt?: number } = {}) {
  let [out, note] = ["", ""];
  const listeners = new Set<(signal: StopSignal) => void>();
  const code = await generateCommand(args, {
    out: (text) => {
      out += text;
      if (out.length >= stopAt) listeners.forEach((listener) => listener("SIGINT"));
    },
    note: (text) => note += text,
    async *lines() {
      yield* await Promise.resolve(lines);
    },
    onStop: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  });
  return { code, out, note, listeners: listeners.size };
}

/** A folder with a checkpoint, and one with a tokenizer that has a chat template. */
async function folders() {
  const folder = await temporaryFolder(), step = await smallCheckpoint(`${folder.path}/checkpoint/step-3`);
  const tokenizer = `${folder.path}/tokenizer`;
  await Deno.mkdir(tokenizer);
  for (const file of ["tokenizer.json", "tokenizer_config.json"]) {
    await Deno.copyFile(`${sample}/${file}`, `${tokenizer}/${file}`);
  }
  const template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:";
  await Deno.writeTextFile(`${tokenizer}/chat_template.jinja`, template);
  return { folder, step, tokenizer, [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose]() };
}

const few = ["--max-new-tokens", "8"];

Deno.test("a prompt is written with its continuation, that of generate(), and then what it took", async () => {
  await using at = await folders();
  const { code, out, note, listeners } = await run(["--from", at.step, "--prompt", "We the people", ...few]);
  let text = "";
  for await (const piece of generate(at.step, { prompt: "We the people", maxNewTokens: 8 })) text += piece.text;
  assertEquals([code, out, listeners], [0, `We the people${text}\n`, 0]);
  assertMatch(note, /^\[\d+ tokens of prompt, first token after \d+ ms; 8 new tokens, [\d.]+ tokens\/s\]\n$/);
});

Deno.test("of a folder of checkpoints the latest is taken, and it is said which", async () => {
  await using at = await folders();
  await smallCheckpoint(`${at.folder.path}/checkpoint/step-2`);
  for (const from of [at.folder.path, `${at.folder.path}/checkpoint`]) {
    const { code, note } = await run(["--from", from, "--prompt", "a", ...few]);
    assertEquals([code, note.split("\n")[0]], [0, `from ${at.folder.path}/checkpoint/step-3`]);
  }
});

Deno.test("several samples come one below the other, each whole", async () => {
  await using at = await folders();
  const { out } = await run(["--from", at.step, "--prompt", "We", "--samples", "3", "--temperature", "1", ...few]);
  const [before, ...samples] = out.split(/--- sample \d ---\n/);
  assertEquals([before, samples.length, samples.every((s) => s.startsWith("We") && s.endsWith("\n"))], ["", 3, true]);
  const first = await run(["--from", at.step, "--prompt", "We", "--temperature", "1", ...few]);
  assertEquals(samples[0], first.out);
});

Deno.test("with --json the texts come as one object, with why each ends and what they took", async () => {
  await using at = await folders();
  const args = ["--from", at.step, "--prompt", "We", "--samples", "2", "--temperature", "1", ...few];
  const written = await run(args), { code, out } = await run([...args, "--json"]);
  const { prompt, texts, statistics } = JSON.parse(out);
  assertEquals([code, prompt, texts.map(({ end }: { end: string }) => end)], [0, "We", ["tokens", "tokens"]]);
  const [, ...samples] = written.out.split(/--- sample \d ---\n/);
  assertEquals(texts.map(({ text }: { text: string }) => `We${text}\n`), samples);
  assertEquals([statistics.newTokens, (await run(["--from", at.step, "--chat", "--json"])).code], [16, 1]);
});

Deno.test("a conversation goes on with what was said, which is not read again, until there is no further line", async () => {
  await using at = await folders();
  const args = ["--from", at.step, "--tokenizer", at.tokenizer, "--chat", "--temperature", "0", ...few];
  const { code, out, note } = await run(args, { lines: ["Hello", "", "And now?"] });
  const once = await run([...args, "--prompt", "Hello"]);
  assertEquals([code, out.startsWith(once.out)], [0, true]);
  assertEquals(note.split("> ").length - 1, 4);
  const known = [...note.matchAll(/(\d+) tokens of prompt(?:, (\d+) of them known)?/g)].map((m) => [m[1], m[2] ?? "0"]);
  // All but the token at the seam, which the answer may have changed.
  assertEquals([known.length, known[0][1], Number(known[1][1]) >= Number(known[0][0]) - 1], [2, "0", true]);
});

Deno.test("Ctrl-C ends a text behind the token under way, tells what it took, and ends with 130", async () => {
  await using at = await folders();
  const args = ["--from", at.step, "--prompt", "We", "--max-new-tokens", "200"];
  const whole = (await run(args)).out, { code, out, note } = await run(args, { stopAt: 10 });
  assertEquals([code, out.endsWith("\n"), whole.startsWith(out.slice(0, -1))], [130, true, true]);
  assertEquals(out.length < whole.length / 2, true);
  assertStringIncludes(note, "new tokens");
});

Deno.test("Ctrl-C ends an answer, and the conversation goes on", async () => {
  await using at = await folders();
  const args = ["--from", at.step, "--tokenizer", at.tokenizer, "--chat", "--max-new-tokens", "100"];
  const { code, note } = await run(args, { lines: ["Hello", "Again"], stopAt: 5 });
  assertEquals([code, [...note.matchAll(/new tokens/g)].length], [0, 2]);
});

Deno.test("an error is one message, and the exit code is 1", async () => {
  await using at = await folders();
  const { code, out, note } = await run(["--from", at.step, "--chat"]);
  assertEquals([code, out], [1, ""]);
  assertMatch(note, /^error: The tokenizer of .* has no chat template\n {2}expected: .*\n {2}fix: /);
  assertMatch((await run(["--from", `${at.folder.path}/none`, "--prompt", "a"])).note, /no such folder/);
  assertEquals((await run(["--help"])).code, 0);
});

Deno.test("of one token alone no rate is told", () => {
  const statistics = { promptTokens: 5, readTokens: 2, newTokens: 1, firstTokenMs: 12.4, decodeMs: 0 };
  assertEquals(
    statisticsText(statistics),
    "[5 tokens of prompt, 3 of them known, first token after 12 ms; 1 new tokens]",
  );
});

/** The command as a process of its own, with the permissions that its task has. */
function command(args: readonly string[]): Deno.Command {
  const { tasks } = JSON.parse(Deno.readTextFileSync(new URL("../../../deno.json", import.meta.url)));
  const words = tasks.generate.command.split(" ").slice(1), cwd = new URL("../../../", import.meta.url);
  return new Deno.Command(Deno.execPath(), { args: [...words, ...args], cwd, stdout: "piped", stderr: "piped" });
}

testRanks("two ranks write, byte by byte, what one does, and end together behind the same token", async () => {
  await using at = await folders();
  const args = ["--from", at.step, "--prompt", "We the people", "--temperature", "0"];
  const alone = await run([...args, ...few]);
  for (const mesh of ["tp=2", "pp=2"]) {
    const { code, stdout, stderr } = await command([...args, ...few, `--mesh=${mesh}`]).output();
    assertEquals([code, new TextDecoder().decode(stdout)], [0, alone.out], mesh);
    assertMatch(new TextDecoder().decode(stderr), /^\[\d+ tokens of prompt, .*\]\n$/);
  }

  const child = command([...args, "--mesh", "pp=2", "--max-new-tokens", "2000", "--context-length", "4000"]).spawn();
  const reader = child.stdout.getReader(), { value } = await reader.read(); // before a line has ended
  child.kill("SIGINT");
  for (let done = false; !done;) ({ done } = await reader.read());
  assertEquals([(await child.status).code, value!.length > 0], [130, true]);
  assertStringIncludes(await new Response(child.stderr).text(), "new tokens");
});

testRanks("a mesh that does not fit the model is refused, and so is a conversation of several ranks", async () => {
  await using at = await folders();
  const refused = async (...args: string[]) =>
    new TextDecoder().decode((await command(["--from", at.step, ...args]).output()).stderr);
  assertMatch(
    await refused("--prompt", "a", "--mesh", "tp=3"),
    /^\[rank\d\] error: Cannot cut ".*" over tp: .*multiple of 3;/,
  );
  assertMatch(await refused("--chat", "--nproc", "2"), /^error: Several ranks read no conversation/);
});
