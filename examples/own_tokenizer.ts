/**
 * A tokenizer of one's own: one token for each character of a text, and nothing else. A tokenizer is a folder with `tokenizer.json`, as
 * Hugging Face's tokenizers write it; here a program makes it. (`deno task tokenizer train` learns one with longer tokens.)
 *
 * npx -y deno run --no-prompt --allow-read --allow-write --allow-ffi=build/libtitan.so examples/own_tokenizer.ts
 * @module
 */
// deno-lint-ignore-file no-import-prefix no-unversioned-import -- a file on its own has no import map
import { llama, texts, Tokenizer, train } from "jsr:@libtitan/titan";

const characters = [...new Set(Deno.readTextFileSync("CONTRIBUTING.md"))].sort();
const vocab = Object.fromEntries(["<end>", ...characters].map((token, id) => [token, id]));
const json = {
  version: "1.0",
  added_tokens: [{
    id: 0,
    content: "<end>",
    special: true,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  }],
  model: { type: "BPE", vocab, merges: [] }, // no merges: no token is longer than a character
  decoder: { type: "Fuse" },
};

const folder = Deno.makeTempDirSync();
Deno.writeTextFileSync(`${folder}/tokenizer.json`, JSON.stringify(json));
Deno.writeTextFileSync(`${folder}/tokenizer_config.json`, JSON.stringify({ eos_token: "<end>" }));

const tokenizer = await Tokenizer.open(folder), ids = tokenizer.encode("A tensor");
console.log(
  `${tokenizer.vocabSize} tokens; "A tensor" is ${ids.length} of them, which spell "${tokenizer.decode(ids)}"`,
);

const run = train({
  model: llama("debug", { dim: 64, numLayers: 1, numHeads: 4, vocabSize: tokenizer.vocabSize }),
  data: texts("CONTRIBUTING.md"),
  tokenizer: folder,
  steps: 60,
  batch: 4,
  seqLen: 64,
  lr: 5e-3,
});
for await (const { step, loss } of run) {
  if (step === 1 || step % 20 === 0) console.log(`step ${step}: loss ${loss.toFixed(3)}`);
}
Deno.removeSync(folder, { recursive: true });
