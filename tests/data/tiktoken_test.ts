import { assertEquals } from "@std/assert";
import { Tokenizer } from "../../data/tokenizer.ts";
import { temporaryFolder } from "./fixture.ts";

Deno.test("what a tokenizer.model cannot say stands beside it: names of special tokens, and which end a document", async () => {
  const model = new URL("../goldens/tokenizers/tiktoken/tokenizer.model", import.meta.url);
  const plain = await Tokenizer.open(model);
  assertEquals([plain.vocabSize, plain.bosId, plain.eosId], [1024 + 256, 1024, 1025]);
  assertEquals([...plain.encode("<|eot_id|>", { special: true })], [1033]);
  await using folder = await temporaryFolder();
  await Deno.copyFile(model, `${folder.path}/tokenizer.model`);
  const decoder = { "1024": { content: "<|begin_of_text|>" }, "1025": { content: "<|end_of_turn|>" } };
  const config = { added_tokens_decoder: decoder, eos_token: "<|end_of_turn|>" };
  await Deno.writeTextFile(`${folder.path}/tokenizer_config.json`, JSON.stringify(config));
  const named = await Tokenizer.open(folder.path);
  assertEquals([named.vocabSize, named.bosId, named.eosId], [1026, 1024, 1025]);
});
