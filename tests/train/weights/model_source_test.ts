import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { DataError } from "../../../data/error.ts";
import { openModel } from "../../../train/weights/model_source.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { sample, smallCheckpoint, smallConfig, smallFamily } from "./fixture.ts";

const goldens = new URL("../../goldens/", import.meta.url).pathname;

Deno.test("a checkpoint knows its tokenizer and the length of its texts, which begin as documents did", async () => {
  await using folder = await temporaryFolder();
  const model = await openModel(await smallCheckpoint(`${folder.path}/step-3`));
  assertEquals(model.family, smallFamily);
  const { tokenizer, ...facts } = model, { tokenizerPath, addsBos, endIds, contextLength, chatTemplate } = facts;
  assertEquals(tokenizerPath, sample);
  assertEquals({ addsBos, endIds, contextLength, chatTemplate }, {
    ...{ addsBos: true, endIds: [2047], contextLength: 256, chatTemplate: null },
  });
  assertEquals(tokenizer.vocabSize, 2048);
});

Deno.test("another tokenizer is taken where it is named, and where a checkpoint knows none it has to be", async () => {
  await using folder = await temporaryFolder();
  const path = await smallCheckpoint(`${folder.path}/step-3`, smallConfig, {});
  const error = await assertRejects(() => openModel(path), CheckpointError);
  assertStringIncludes(error.message, "does not say which it was trained with");
  assertStringIncludes(error.message, "--tokenizer FOLDER");
  assertEquals((await openModel(path, { tokenizer: sample })).contextLength, undefined);
  await assertRejects(() => openModel(path, { tokenizer: folder.path }), DataError, "there is no");
});

Deno.test("a tokenizer with more tokens than the model has rows is not the model's", async () => {
  await using folder = await temporaryFolder();
  const path = await smallCheckpoint(`${folder.path}/step-3`, { ...smallConfig, vocabSize: 2000 });
  await assertRejects(() => openModel(path), CheckpointError, "has 2048 tokens");
  await assertRejects(() => openModel(`${goldens}hf/plain`), CheckpointError, "it has no tokenizer");
});

Deno.test("a folder's chat template is that of its own file, else the configuration's, of several the default", async () => {
  await using folder = await temporaryFolder();
  const path = await smallCheckpoint(`${folder.path}/step-3`), own = `${folder.path}/tokenizer`;
  await Deno.mkdir(own);
  await Deno.copyFile(`${sample}/tokenizer.json`, `${own}/tokenizer.json`);
  const config = JSON.parse(await Deno.readTextFile(`${sample}/tokenizer_config.json`));
  const template = async (chat_template?: unknown) => {
    await Deno.writeTextFile(`${own}/tokenizer_config.json`, JSON.stringify({ ...config, chat_template }));
    return (await openModel(path, { tokenizer: own })).chatTemplate;
  };
  assertEquals([await template(), await template("one")], [null, "one"]);
  assertEquals(await template([{ name: "tool", template: "a" }, { name: "default", template: "b" }]), "b");
  await Deno.writeTextFile(`${own}/chat_template.jinja`, "file");
  assertEquals(await template("one"), "file");
});

Deno.test("generation_config.json adds tokens that end what a model says", async () => {
  await using folder = await temporaryFolder();
  const path = await smallCheckpoint(`${folder.path}/step-3`), own = `${folder.path}/tokenizer`;
  await Deno.mkdir(own);
  for (const file of ["tokenizer.json", "tokenizer_config.json"]) {
    await Deno.copyFile(`${sample}/${file}`, `${own}/${file}`);
  }
  await Deno.writeTextFile(`${own}/generation_config.json`, JSON.stringify({ eos_token_id: [5, 2047] }));
  assertEquals((await openModel(path, { tokenizer: own })).endIds, [5, 2047]);
});
