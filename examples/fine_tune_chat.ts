/**
 * Trains a tiny Llama on chats, of which it learns what the assistant says, and asks it something afterwards. Name a folder of your own with
 * chats.jsonl and the tokenizer of a model for chats instead of data/sample_chat.
 *
 * npx -y deno run --no-prompt --allow-read --allow-ffi=build/libtitan.so examples/fine_tune_chat.ts data/sample_chat
 * @module
 */
// deno-lint-ignore-file no-import-prefix no-unversioned-import -- a file on its own has no import map
import { chats, generate, llama, Trainer } from "jsr:@libtitan/titan";

const [folder] = Deno.args;
await using run = await Trainer.open({
  model: llama("debug", { dim: 64, numLayers: 2, numHeads: 4, vocabSize: 512 }),
  data: chats(`${folder}/chats.jsonl`),
  tokenizer: folder,
  steps: 300,
  batch: 4,
  seqLen: 128,
  lr: 5e-3,
  generate: { sequences: 1, maxLength: 128 },
});

for await (const { step, loss, padding } of run) {
  if (step === 1 || step % 50 === 0) {
    console.log(`step ${step}: loss ${loss.toFixed(3)}, ${(100 * padding).toFixed(1)} % of the row is padding`);
  }
}

const messages = [{ role: "user", content: "What is the capital of Italy?" }];
let answer = "";
for await (const { text } of generate(run, { messages, maxNewTokens: 20, temperature: 0 })) answer += text;
console.log(answer);
