import { assertEquals, assertRejects } from "@std/assert";
import { Tokenizer as HuggingFace } from "@huggingface/tokenizers";
import { readGguf } from "../../../data/gguf.ts";
import type { NewGgufValue } from "../../../data/gguf_tokenizer.ts";
import { Tokenizer } from "../../../data/tokenizer.ts";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { differences } from "../../../train/checkpoint/inspect.ts";
import { openFolder } from "../../../train/checkpoint/load.ts";
import { convertWeights } from "../../../train/weights/convert.ts";
import { exportGguf } from "../../../train/weights/gguf_export.ts";
import { openModel } from "../../../train/weights/model_source.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { sample, smallCheckpoint, smallConfig, smallFamily } from "./fixture.ts";

const TEXT = "Fellow citizens,\n  in 1829 we 've  seen <|end_of_text|> é 日本";

Deno.test("a checkpoint, a folder and a file of GGUF become each other, with weights, tokenizer and length of texts", async () => {
  await using folder = await temporaryFolder();
  const { path } = folder,
    steps = [await smallCheckpoint(`${path}/step-3`), `${path}/a.gguf`, `${path}/b`, `${path}/c.gguf`];
  const first = await openModel(steps[0]);
  for (let n = 1; n < steps.length; n++) {
    await convertWeights(steps[n - 1], steps[n]);
    const model = await openModel(steps[n]), { family, contextLength, endIds, tokenizer } = model;
    assertEquals(
      { family, contextLength, endIds },
      { family: first.family, contextLength: 256, endIds: [2047] },
      steps[n],
    );
    assertEquals(await differences(first.checkpoint, openFolder(steps[n])), []);
    const encoded = { bos: true, special: true };
    assertEquals(tokenizer.encode(TEXT, encoded), first.tokenizer.encode(TEXT, encoded));
    assertEquals(tokenizer.encode(TEXT), first.tokenizer.encode(TEXT));
  }
  // A folder says what begins a text as its tokenizer does: the sample's says nothing.
  assertEquals([(await openModel(steps[1])).addsBos, first.addsBos], [true, true]);
  await assertRejects(() => convertWeights(steps[0], steps[1]), CheckpointError, "it is there already");
  await assertRejects(() => convertWeights(steps[0], steps[2]), CheckpointError, "is there already");
  await assertRejects(
    () => convertWeights(steps[0], `${path}/d`, { dtype: "q8_0" }),
    CheckpointError,
    "folders have no q8_0",
  );
});

Deno.test("the tokenizer of bytes goes with its checkpoint, into a folder, a file of GGUF and back", async () => {
  await using folder = await temporaryFolder();
  const { path } = folder, config = { ...smallConfig, vocabSize: 288 };
  const from = await smallCheckpoint(`${path}/step-3`, config, { seqLen: 256, tokenizer: "bytes" });
  await convertWeights(from, `${path}/a`);
  await convertWeights(`${path}/a`, `${path}/b.gguf`);
  await convertWeights(`${path}/b.gguf`, `${path}/c`);
  const bytes = [...new TextEncoder().encode(TEXT)];
  for (const place of [from, `${path}/a`, `${path}/b.gguf`, `${path}/c`]) {
    const { tokenizer, endIds } = await openModel(place);
    assertEquals([...tokenizer.encode(TEXT, { bos: true, eos: true })], [256, ...bytes, 257], place);
    assertEquals([tokenizer.decode(bytes), endIds], [TEXT, [257]]);
  }
  const [json, settings] = ["tokenizer.json", "tokenizer_config.json"].map((name) =>
    JSON.parse(Deno.readTextFileSync(`${path}/a/${name}`))
  );
  const plain = "Fellow citizens,\n  é 日本\u0000";
  const { ids } = new HuggingFace(json, settings).encode(plain, { add_special_tokens: false });
  assertEquals(ids, [...new TextEncoder().encode(plain)]);
  assertEquals((await openModel(`${path}/a`, { tokenizer: "bytes" })).tokenizerPath, "bytes");
  await assertRejects(
    () => openModel(from, { tokenizer: sample }),
    CheckpointError,
    `the tokenizer ${sample} has 2048 tokens`,
  );
});

Deno.test("a SentencePiece tokenizer keeps its ids through a folder and back", async () => {
  await using folder = await temporaryFolder();
  const { path } = folder, golden = new URL("../../goldens/gguf/sentencepiece.gguf", import.meta.url).pathname;
  const from = await smallCheckpoint(`${path}/step-3`);
  await convertWeights(from, `${path}/a`, { tokenizer: golden });
  await convertWeights(`${path}/a`, `${path}/b.gguf`);
  const [model, { tokenizer }] = [await openModel(`${path}/b.gguf`), await openModel(from, { tokenizer: golden })];
  for (const text of [TEXT, "", " a  b"]) assertEquals(model.tokenizer.encode(text), tokenizer.encode(text));
  const types = (file: string) => (readGguf(file).metadata.get("tokenizer.ggml.token_type") as number[]).slice(0, 450);
  assertEquals(types(`${path}/b.gguf`), types(golden));
});

Deno.test("the scores of a SentencePiece vocabulary say what is joined first, not the numbers of its tokens", async () => {
  await using folder = await temporaryFolder();
  const golden = new URL("../../goldens/gguf/sentencepiece.gguf", import.meta.url).pathname;
  const { metadata } = readGguf(golden), list = (key: string) => metadata.get(`tokenizer.ggml.${key}`) as never[];
  const begin = list("token_type").indexOf(1 as never), { length } = list("tokens");
  const turned = (key: string) => [...list(key).slice(0, begin), ...list(key).slice(begin).reverse()];
  const checkpoint = openFolder(await smallCheckpoint(`${folder.path}/step-3`)), path = `${folder.path}/a.gguf`;
  const tokenizer = new Map<string, NewGgufValue>([
    ["tokenizer.ggml.model", { type: "string", value: "llama" }],
    ["tokenizer.ggml.tokens", { type: "array", of: "string", value: turned("tokens") }],
    ["tokenizer.ggml.scores", { type: "array", of: "f32", value: turned("scores") }],
    ["tokenizer.ggml.token_type", { type: "array", of: "i32", value: turned("token_type") }],
  ]);
  await exportGguf(checkpoint, smallFamily, path, { dtype: "f32", contextLength: 1, name: "a", tokenizer });
  const [here, there] = [await Tokenizer.open(path), await Tokenizer.open(golden)];
  const text = "in order to form a more perfect union, this nation shall not perish", ids = [...there.encode(text)];
  assertEquals([...here.encode(text)], ids.map((id) => id < begin ? id : length - 1 - (id - begin)));
});
