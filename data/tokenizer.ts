/**
 * Tokenizers as Hugging Face models ship them: `tokenizer.json` (any kind: byte-level BPE, SentencePiece, ...) and
 * `tokenizer_config.json`, which names the tokens that begin and end a document.
 * @module
 */
import { Kitoken } from "kitoken/full";
import { DataError } from "./error.ts";
import { readBytes, show, toUrl, within } from "./source.ts";

/** Which special tokens to put around a text; those that the tokenizer lacks are left out. */
export interface EncodeOptions {
  /** Put the token that begins a document before the text; false by default. */
  bos?: boolean;
  /** Put the token that ends a document after the text; false by default. */
  eos?: boolean;
}

/** What this module asks of `tokenizer.json`. */
interface TokenizerJson {
  model: { vocab: Record<string, number> | [string, number][] };
  added_tokens?: { id: number; content: string }[];
}

/** Text to token ids and back. */
export class Tokenizer {
  /** Number of ids, special ones included: one more than the largest. */
  readonly vocabSize: number;
  /** The token that begins a document; null where there is none. */
  readonly bosId: number | null;
  /** The token that ends a document; null where there is none. */
  readonly eosId: number | null;
  readonly #kitoken: Kitoken;

  private constructor(kitoken: Kitoken, vocabSize: number, bosId: number | null, eosId: number | null) {
    this.#kitoken = kitoken;
    this.vocabSize = vocabSize;
    this.bosId = bosId;
    this.eosId = eosId;
  }

  /** Opens a folder that holds `tokenizer.json` and `tokenizer_config.json` (`model.hf_assets_path`), or the former.
   * @throws {DataError} when one is missing or cannot be used. */
  static async open(location: string | URL): Promise<Tokenizer> {
    const url = toUrl(location);
    const file = url.pathname.endsWith(".json") ? url : within(url, "tokenizer.json");
    const bytes = await read(file);
    const json = parse<TokenizerJson>(bytes, file);
    let kitoken: Kitoken;
    try {
      kitoken = Kitoken.from_tokenizers(bytes);
    } catch (error) {
      throw bad(file, String(error), "a tokenizer.json as Hugging Face's tokenizers library writes it");
    }
    const ids = new Map((json.added_tokens ?? []).map(({ id, content }) => [content, id]));
    const { vocab } = json.model;
    const find = (token: string) => ids.get(token) ?? (Array.isArray(vocab) ? undefined : vocab[token]);

    const configFile = new URL("tokenizer_config.json", file);
    const config = parse<Record<string, unknown>>(await read(configFile), configFile);
    const special = (key: string): number | null => {
      const value = config[key];
      const token = typeof value === "object" && value !== null ? (value as { content?: unknown }).content : value;
      if (token === undefined || token === null) return null;
      const id = typeof token === "string" ? find(token) : undefined;
      if (id !== undefined) return id;
      throw bad(configFile, `its ${key} is ${JSON.stringify(token)}`, `a token of ${show(file)}, or null for none`);
    };
    let last = Array.isArray(vocab) ? vocab.length - 1 : -1;
    for (const id of [...(Array.isArray(vocab) ? [] : Object.values(vocab)), ...ids.values()]) {
      last = Math.max(last, id);
    }
    return new Tokenizer(kitoken, last + 1, special("bos_token"), special("eos_token"));
  }

  /** The ids of a text. What looks like a special token in it is ordinary text. */
  encode(text: string, { bos = false, eos = false }: EncodeOptions = {}): Int32Array {
    const plain = this.#kitoken.encode(text, false);
    const begin = bos && this.bosId !== null ? 1 : 0;
    const end = eos && this.eosId !== null ? 1 : 0;
    const ids = new Int32Array(begin + plain.length + end);
    if (begin) ids[0] = this.bosId!;
    ids.set(plain, begin);
    if (end) ids[ids.length - 1] = this.eosId!;
    return ids;
  }

  /** The text of ids, special tokens included.
   * @throws {DataError} when an id is not one of this tokenizer's. */
  decode(ids: Iterable<number>): string {
    const list = Uint32Array.from(ids);
    const wrong = list.find((id) => id >= this.vocabSize);
    if (wrong !== undefined) {
      throw new DataError({
        code: "bad_token",
        what: `Cannot decode token ${wrong | 0}`,
        expected: `ids from 0 to ${this.vocabSize - 1}`,
        fix: "decode with the tokenizer that the ids were made with",
      });
    }
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.#kitoken.decode(list, true));
  }
}

async function read(file: URL): Promise<Uint8Array> {
  const bytes = await readBytes(file);
  if (bytes !== undefined) return bytes;
  throw new DataError({
    code: "no_such_file",
    what: `Cannot open tokenizer: there is no ${show(file)}${await besides(file)}`,
    expected: "a folder with tokenizer.json and tokenizer_config.json, such as data/sample or that of a model",
    fix: "set model.hf_assets_path (--model.hf_assets_path) to such a folder",
  });
}

/** What else is in the folder of a missing file. */
async function besides(file: URL): Promise<string> {
  if (file.protocol !== "file:") return "";
  try {
    const names = (await Array.fromAsync(Deno.readDir(new URL(".", file)))).map(({ name }) => name).sort();
    const some = names.slice(0, 8).join(", ") + (names.length > 8 ? ", ..." : "");
    return names.length === 0 ? " (its folder is empty)" : ` (its folder holds ${some})`;
  } catch {
    return " (nor its folder)";
  }
}

function parse<T>(bytes: Uint8Array, file: URL): T {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw bad(file, (error as Error).message, "JSON");
  }
}

function bad(file: URL, why: string, expected: string): DataError {
  return new DataError({
    code: "bad_tokenizer",
    what: `Cannot use ${show(file)}: ${why}`,
    expected,
    fix: "download it again, or correct it",
  });
}
