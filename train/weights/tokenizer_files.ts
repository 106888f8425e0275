/** A tokenizer's files beside exported weights, and what they say of the tokens that begin and end a text, so that whoever generates with
 * the weights knows where to stop. A file of GGUF has a tokenizer too, whose files are made.
 * @module */
import { BYTES } from "../../data/byte_tokenizer.ts";
import { isGgufName, readGguf } from "../../data/gguf.ts";
import { ggufEndIds } from "../../data/gguf_tokenizer.ts";
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

/** Does a folder, or a file of GGUF, have a tokenizer? */
export function hasTokenizer(path: string): boolean {
  return isGgufName(path)
    ? isFile(path)
    : ["tokenizer.json", "tokenizer.model"].some((name) => isFile(`${path}/${name}`));
}

/** Copies a tokenizer's files into a folder of weights. `generation_config.json` is made where the tokenizer's folder has none.
 * @param from the tokenizer's folder, its address, or a file of GGUF. @returns the tokens that begin and end a text.
 * @throws {CheckpointError} when there is no tokenizer. @throws {DataError} when it cannot be used. */
export async function copyTokenizer(from: string, to: string): Promise<SpecialTokens> {
  if (hasNoFolder(from) || isGgufName(from)) return await writeFiles(from, to);
  const found = FILES.filter((file) => isFile(`${from}/${file}`));
  if (!found.includes("tokenizer.json") && !found.includes("tokenizer.model")) {
    throw new CheckpointError(
      `Cannot copy a tokenizer: ${from} has no tokenizer.json or tokenizer.model`,
      "a folder with tokenizer.json and tokenizer_config.json, such as data/sample, or with tokenizer.model",
      "name the tokenizer's folder, or leave it out",
    );
  }
  for (const file of found) Deno.copyFileSync(`${from}/${file}`, `${to}/${file}`);
  if (!found.includes("tokenizer.json")) { // a tokenizer.model alone, which not every program reads
    const { files: { json, config } } = await Tokenizer.open(from);
    await writeJson(`${to}/tokenizer.json`, json);
    await writeJson(`${to}/tokenizer_config.json`, config);
  }
  const special = await specialTokens(from);
  if (!found.includes("generation_config.json") && Object.keys(special).length > 0) {
    await writeJson(`${to}/generation_config.json`, special);
  }
  return special;
}

/** Is it a tokenizer without files, or one that a server has, such as the sample's of a package? */
const hasNoFolder = (from: string): boolean => from === BYTES || /^https?:/.test(from);

/** Writes the files that a tokenizer without any in a folder would have. */
async function writeFiles(from: string, to: string): Promise<SpecialTokens> {
  const { files: { json, config }, bosId } = await Tokenizer.open(from);
  const special = given(bosId, endTokens(await endIdsOf(from)));
  const files = { "tokenizer.json": json, "tokenizer_config.json": config, "generation_config.json": special };
  for (const [name, content] of Object.entries(files)) await writeJson(`${to}/${name}`, content);
  return special;
}

const writeJson = (path: string, content: unknown) => writeLasting(path, `${JSON.stringify(content, null, 2)}\n`);

/** As configurations spell them: none, one, or several. */
const endTokens = (ids: readonly number[]): unknown => ids.length > 1 ? ids : ids[0];

/** The tokens that end what a model says, as its folder or its file of GGUF tells. */
export async function endIdsOf(from: string): Promise<readonly number[]> {
  if (isGgufName(from)) return ggufEndIds(readGguf(from));
  if (hasNoFolder(from)) return [(await Tokenizer.open(from)).eosId].filter((id) => id !== null);
  const { eos_token_id: eos } = await specialTokens(from);
  return (Array.isArray(eos) ? eos : [eos]).filter((id) => typeof id === "number");
}

/** What a folder says of them: how its model generates, else its model, else its tokenizer. */
async function specialTokens(folder: string): Promise<SpecialTokens> {
  for (const file of ["generation_config.json", "config.json"]) {
    if (!isFile(`${folder}/${file}`)) continue;
    const { bos_token_id: bos, eos_token_id: eos } = readJson(`${folder}/${file}`);
    if (bos != null || eos != null) return given(bos, eos);
  }
  const has = (file: string) => isFile(`${folder}/${file}`);
  if (has("tokenizer.json") ? !has("tokenizer_config.json") : !has("tokenizer.model")) return {};
  const { bosId, eosId } = await Tokenizer.open(folder);
  return given(bosId, eosId);
}

const given = (bos: unknown, eos: unknown): SpecialTokens => ({
  ...(bos == null ? {} : { bos_token_id: bos }),
  ...(eos == null ? {} : { eos_token_id: eos }),
});
