/** A tokenizer's files beside exported weights, and what they say of the tokens that begin and end a text, so that whoever generates with
 * the weights knows where to stop.
 * @module */
import { Tokenizer } from "../../data/tokenizer.ts";
import { CheckpointError } from "../checkpoint/error.ts";
import { writeLasting } from "../checkpoint/files.ts";
import { isFile, readJson } from "./weight_files.ts";

/** Files that are copied where there are some. */
const FILES = [
  ...["tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"],
  ...["chat_template.jinja", "generation_config.json"],
];

/** Tokens that begin and end a text, as far as they are known; several may end it. */
export interface SpecialTokens {
  readonly bos_token_id?: unknown;
  readonly eos_token_id?: unknown;
}

/** Copies a tokenizer's files into a folder of weights. `generation_config.json` is made where the tokenizer's folder has none.
 * @returns the tokens that begin and end a text.
 * @throws {CheckpointError} when there is no tokenizer. @throws {DataError} when it cannot be used. */
export async function copyTokenizer(from: string, to: string): Promise<SpecialTokens> {
  const found = FILES.filter((file) => isFile(`${from}/${file}`));
  if (!found.includes("tokenizer.json") && !found.includes("tokenizer.model")) {
    throw new CheckpointError(
      `Cannot copy a tokenizer: ${from} has no tokenizer.json`,
      "a folder with tokenizer.json and tokenizer_config.json, such as data/sample",
      "name the tokenizer's folder, or leave it out",
    );
  }
  for (const file of found) Deno.copyFileSync(`${from}/${file}`, `${to}/${file}`);
  const special = await specialTokens(from);
  if (!found.includes("generation_config.json") && Object.keys(special).length > 0) {
    await writeLasting(`${to}/generation_config.json`, `${JSON.stringify(special, null, 2)}\n`);
  }
  return special;
}

/** What a folder says of them: how its model generates, else its model, else its tokenizer. */
async function specialTokens(folder: string): Promise<SpecialTokens> {
  for (const file of ["generation_config.json", "config.json"]) {
    if (!isFile(`${folder}/${file}`)) continue;
    const { bos_token_id: bos, eos_token_id: eos } = readJson(`${folder}/${file}`);
    if (bos != null || eos != null) return given(bos, eos);
  }
  if (!["tokenizer.json", "tokenizer_config.json"].every((file) => isFile(`${folder}/${file}`))) return {};
  const { bosId, eosId } = await Tokenizer.open(folder);
  return given(bosId, eosId);
}

const given = (bos: unknown, eos: unknown): SpecialTokens => ({
  ...(bos == null ? {} : { bos_token_id: bos }),
  ...(eos == null ? {} : { eos_token_id: eos }),
});
