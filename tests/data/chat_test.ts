import { gzipSync } from "node:zlib";
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { chatText, encodeMarked } from "../../data/chat.ts";
import { BEGIN_MARK, END_MARK } from "../../data/chat_template.ts";
import { chats, SAMPLE } from "../../data/dataset.ts";
import { DataError } from "../../data/error.ts";
import { Loader } from "../../data/loader.ts";
import { ID, MASKED } from "../../data/packing.ts";
import { chats as conversations, chatsFolder, goldens, open, templateText, tokenizerFolder } from "./chats.ts";
import { take, temporaryFolder } from "./fixture.ts";

Deno.test("conversations have the ids and the mask that transformers gives them", async (t) => {
  for (const [name, { chats: rows }] of Object.entries(goldens)) {
    for (const end of ["", "_marked"]) {
      await t.step(name + end, async () => {
        const { tokenizer, template } = await open(name, end);
        conversations.forEach((messages, n) => {
          const words = encodeMarked(tokenizer, chatText(messages, template, { maskPrompt: true }));
          assertEquals([...words].map((word) => word & ID), rows[n].ids, `conversation ${n}`);
          assertEquals([...words].map((word) => word & MASKED ? 0 : 1), rows[n].mask, `conversation ${n}`);
        });
      });
    }
  }
});

Deno.test("where prompts are learned, too, no token is masked", async () => {
  const { tokenizer, template } = await open("chatml");
  const words = encodeMarked(tokenizer, chatText(conversations[0], template, { maskPrompt: false }));
  assertEquals([...words], goldens.chatml.chats[0].ids);
});

Deno.test("what is no conversation is refused with what is wrong about it", async () => {
  const { template } = await open("chatml");
  const user = { role: "user", content: "Hi" };
  const cases: [unknown, string][] = [
    ["Hi", "its messages are no list, but a string"],
    [null, "it has no messages"],
    [[], "it has no message"],
    [[user, "Ho"], "message 2 has no role"],
    [[{ role: "user" }], "message 1 (user) has no content"],
    [[user, { role: "assistant", content: [] }], "message 2 (assistant) has content that is no text"],
    [[user], "no message is the assistant's"],
    [[{ role: "user", content: "\ufdd0" }], "message 1 (user) has a character that is none"],
  ];
  for (const [messages, why] of cases) {
    assertThrows(() => chatText(messages, template, { maskPrompt: true }), Error, why);
  }
});

Deno.test("a tokenizer that changes the text cannot tell its tokens apart, and says where", async () => {
  const { tokenizer } = await open("chatml");
  const changing = Object.assign(Object.create(tokenizer), {
    encode: (text: string) => tokenizer.encode(text.toLowerCase()),
    bytesOf: (id: number) => tokenizer.bytesOf(id),
  });
  assertThrows(() => encodeMarked(changing, `${BEGIN_MARK}ab CD${END_MARK}`), Error, 'is not what stands at " CD"');
});

const turn = (role: string, content: string) => ({ role, content });

/** Conversations in a file, and a tokenizer with ChatML's template. */
async function chatFiles(...lines: string[]) {
  const folder = await temporaryFolder(), { path } = folder;
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    await Deno.copyFile(`${tokenizerFolder("chatml")}/${name}`, `${path}/${name}`);
  }
  await Deno.writeTextFile(`${path}/chat_template.jinja`, templateText("chatml"));
  await Deno.writeTextFile(`${path}/c.jsonl`, lines.map((line) => `${line}\n`).join(""));
  const options = {
    dataset: chats(`${path}/c.jsonl`),
    tokenizer: path,
    batchSize: 1,
    seqLen: 63,
    lanes: 1,
    infinite: false,
  };
  return { folder, options };
}

const line = (...content: string[]) =>
  JSON.stringify({ messages: content.map((text, n) => turn(n % 2 ? "assistant" : "user", text)) });

Deno.test("a file's conversations are rows of which the assistant's tokens alone are targets", async () => {
  const { folder, options } = await chatFiles(line("Hi", "Ho!"), line("And you?", "Well."));
  await using _ = folder;
  await using loader = await Loader.open(options);
  const batch = (await loader.next())!, learned = [...batch.targets].filter((id) => id >= 0);
  assertEquals(loader.tokenizer.decode(learned), "Ho!<|im_end|>\nWell.<|im_end|>\n");
  assertEquals(await loader.next(), undefined);
});

Deno.test("a bad conversation is told with its file and line, or left out and counted", async () => {
  const good = line("Hi", "Ho!"),
    bad = [JSON.stringify({ messages: [turn("user", "Hi")] }), `{"messages": [{"role": "user"}]}`];
  const { folder, options } = await chatFiles(good, ...bad, good);
  await using _ = folder;
  await using strict = await Loader.open(options);
  const error = await assertRejects(() => strict.next(), DataError, "Cannot read line 2 of ");
  assertEquals(error.message.includes("c.jsonl: no message is the assistant's"), true, error.message);
  const told: string[] = [];
  await using loader = await Loader.open({
    ...options,
    skipBad: true,
    onSkip: ({ problem }) => told.push(problem.what),
  });
  assertEquals((await loader.next())!.skipped, 2);
  assertEquals(told.map((what) => /line \d/.exec(what)![0]), ["line 2", "line 3"]);
});

Deno.test("a conversation longer than a row is cut or left out, as is said, and counted", async () => {
  const { folder, options } = await chatFiles(
    line("Hi", "Ho! ".repeat(60)),
    line("And?", "So."),
    line("Hi! ".repeat(60), "Ho!"),
  );
  await using _ = folder;
  await using cutting = await Loader.open(options);
  const rows = await take(cutting);
  assertEquals(rows.map(({ cut, skipped }) => [cut, skipped]), [[2, 1], [2, 1]]); // of the last the answer itself is cut off
  await using dropping = await Loader.open({ ...options, chat: { tooLong: "drop" } });
  const [only, ...others] = await take(dropping);
  assertEquals([only.cut, only.skipped, others.length], [0, 2, 0]);
});

Deno.test("a run does not go on with another template, or with prompts that are learned now", async () => {
  const { folder, options } = await chatFiles(line("Hi", "Ho!"), line("And?", "So."));
  await using _ = folder;
  await using loader = await Loader.open(options);
  const state = loader.state();
  await using _same = await Loader.open({ ...options, state });
  const learned = { ...options, state, chat: { maskPrompt: false } };
  await assertRejects(() => Loader.open(learned), DataError, "belongs to other text, or to another order of it");
  await Deno.writeTextFile(`${folder.path}/chat_template.jinja`, templateText("smollm2"));
  await assertRejects(() => Loader.open({ ...options, state }), DataError, "belongs to other text");
});

Deno.test("conversations need a template, and rows that hold them whole", async () => {
  const { folder, options } = await chatFiles(line("Hi", "Ho!"));
  await using _ = folder;
  await assertRejects(
    () => Loader.open({ ...options, tokenizer: SAMPLE }),
    DataError,
    "Cannot use the chat template of the tokenizer",
  );
  await assertRejects(
    () => Loader.open({ ...options, packing: "windows" }),
    DataError,
    "Cannot pack conversations as windows",
  );
  await Deno.writeTextFile(`${folder.path}/chat_template.jinja`, "{% if %}");
  await assertRejects(() => Loader.open(options), DataError, "Cannot use the chat template");
});

Deno.test("conversations in .parquet and in compressed lines are those in plain lines", async () => {
  const { folder, options } = await chatFiles();
  await using _ = folder;
  const plain = await Deno.readFile(new URL("chats.jsonl", chatsFolder));
  await Deno.writeFile(`${folder.path}/chats.jsonl.gz`, gzipSync(plain));
  const paths = [new URL("chats.jsonl", chatsFolder).pathname, new URL("chats.parquet", chatsFolder).pathname];
  const rows = async (path: string) => {
    await using loader = await Loader.open({ ...options, seqLen: 127, dataset: chats(path) });
    return (await take(loader)).map(({ tokens, targets }) => [tokens, targets]);
  };
  const [lines, table, zipped] = await Promise.all([...paths, `${folder.path}/chats.jsonl.gz`].map(rows));
  assertEquals(lines.length > 1, true);
  assertEquals([table, zipped], [lines, lines]);
  const held = { dataset: { ...chats(paths[1]), part: "held-out" as const } };
  await assertRejects(() => Loader.open({ ...options, ...held }), DataError, "Cannot hold out a part of");
});
