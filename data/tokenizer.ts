/**
 * Tokenizers as Hugging Face models ship them: `tokenizer.json` (any kind: byte-level BPE, SentencePiece, ...) and
 * `tokenizer_config.json`, which names the tokens that begin and end a document. A file of GGUF has the same in its header.
 * @module
 */
import { fromFileUrl } from "@std/path";
import { Kitoken } from "kitoken/full";
import { BYTES, byteTokenizer } from "./byte_tokenizer.ts";
import { DataError } from "./error.ts";
import { isGgufName } from "./gguf.ts";
import { addsBos, ggufTokenizer, type TokenizerFiles, tokenText } from "./gguf_tokenizer.ts";
import { readBytes, show, toUrl, within } from "./source.ts";

/** Which special tokens to put around a text; those that the tokenizer lacks are left out. */
export interface EncodeOptions {
  /** Put the token that begins a document before the text; false by default. */
  bos?: boolean;
  /** Put the token that ends a document after the text; false by default. */
  eos?: boolean;
  /** Is what looks like a special token one? False by default: in a document it is ordinary text. */
  special?: boolean;
}

/** Text to token ids and back. */
export class Tokenizer {
  /** Number of ids, special ones included: one more than the largest. */
  readonly vocabSize: number;
  /** The token that begins a document; null where there is none. */
  readonly bosId: number | null;
  /** The token that ends a document; null where there is none. */
  readonly eosId: number | null;
  /** What its files say.
   * @internal */
  readonly files: TokenizerFiles;
  readonly #kitoken: Kitoken;

  private constructor(files: TokenizerFiles, kitoken: Kitoken, names: FileNames) {
    const { json, config } = files, { vocab } = json.model, added = json.added_tokens ?? [];
    const ids = new Map(added.map(({ id, content }) => [content, id]));
    const special = (key: string): number | null => {
      const value = config[key], token = tokenText(value);
      if (value === undefined || value === null) return null;
      const id = token === undefined
        ? undefined
        : ids.get(token) ?? (Array.isArray(vocab) ? undefined : (vocab as Record<string, number>)[token]);
      if (id !== undefined) return id;
      throw bad(
        names.config,
        `its ${key} is ${JSON.stringify(token ?? value)}`,
        `a token of ${names.json}, or null for none`,
      );
    };
    let last = Array.isArray(vocab) ? vocab.length - 1 : -1;
    for (const id of [...(Array.isArray(vocab) ? [] : Object.values(vocab)), ...ids.values()]) {
      last = Math.max(last, id);
    }
    this.files = files;
    this.#kitoken = kitoken;
    this.vocabSize = last + 1;
    this.bosId = special("bos_token");
    this.eosId = special("eos_token");
  }

  /** Opens a folder that holds `tokenizer.json` and `tokenizer_config.json` (`model.hf_assets_path`), or the former, or a file of GGUF;
   * `"bytes"` is a tokenizer without files, whose tokens are bytes.
   * @throws {DataError} when one is missing or cannot be used. */
  static async open(location: string | URL): Promise<Tokenizer> {
    if (location === BYTES) return Tokenizer.#of(byteTokenizer(), BYTES);
    const url = toUrl(location);
    if (url.protocol === "file:" && isGgufName(url.pathname)) {
      const path = fromFileUrl(url);
      return Tokenizer.#of(ggufTokenizer(path), path);
    }
    const file = url.pathname.endsWith(".json") ? url : within(url, "tokenizer.json");
    const bytes = await read(file), json = parse<TokenizerFiles["json"]>(bytes, file);
    const kitoken = kitokenOf(bytes, show(file)), configFile = new URL("tokenizer_config.json", file);
    const config = parse<TokenizerFiles["config"]>(await read(configFile), configFile);
    return new Tokenizer({ json, config }, kitoken, { json: show(file), config: show(configFile) });
  }

  /** One whose files are made. */
  static #of(files: TokenizerFiles, name: string): Tokenizer {
    const bytes = new TextEncoder().encode(JSON.stringify(files.json));
    return new Tokenizer(files, kitokenOf(bytes, name), { json: name, config: name });
  }

  /** Does its model expect a text to begin with the token that begins a document? Undefined where its files do not say. */
  get addsBos(): boolean | undefined {
    return addsBos(this.files);
  }

  /** The ids of a text. */
  encode(text: string, { bos = false, eos = false, special = false }: EncodeOptions = {}): Int32Array {
    const plain = this.#kitoken.encode(text, special);
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
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.decodeBytes(ids));
  }

  /** The same as bytes, which may end within a character.
   * @param special are special tokens part of it? */
  decodeBytes(ids: Iterable<number>, { special = true }: { readonly special?: boolean } = {}): Uint8Array {
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
    return this.#kitoken.decode(list, special);
  }
}

/** A tokenizer as checkpoints and messages name it: `bytes`, or its URL. */
export function tokenizerName(location: string | URL): string {
  return location === BYTES ? BYTES : toUrl(location).href;
}

/** A tokenizer as people and files name it, from what {@linkcode tokenizerName} gave. */
export function tokenizerPath(name: string): string {
  return name === BYTES ? BYTES : show(new URL(name)).replace(/(?<=.)\/+$/, "");
}

/** The names of a tokenizer's files, for errors. */
interface FileNames {
  readonly json: string;
  readonly config: string;
}

function kitokenOf(bytes: Uint8Array, name: string): Kitoken {
  try {
    return Kitoken.from_tokenizers(bytes);
  } catch (error) {
    throw bad(name, String(error), "a tokenizer.json as Hugging Face's tokenizers library writes it");
  }
}

async function read(file: URL): Promise<Uint8Array> {
  const bytes = await readBytes(file);
  if (bytes !== undefined) return bytes;
  throw new DataError({
    code: "no_such_file",
    what: `Cannot open tokenizer: there is no ${show(file)}${await besides(file)}`,
    expected: "a folder with tokenizer.json and tokenizer_config.json, such as data/sample or that of a model",
    fix:
      'set model.hf_assets_path (--model.hf_assets_path) to such a folder, or data.tokenizer = "bytes", which needs none',
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
    throw bad(show(file), (error as Error).message, "JSON");
  }
}

function bad(name: string, why: string, expected: string): DataError {
  return new DataError({
    code: "bad_tokenizer",
    what: `Cannot use ${name}: ${why}`,
    expected,
    fix: "download it again, or correct it",
  });
}
