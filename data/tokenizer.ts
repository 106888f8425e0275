/**
 * Tokenizers as models ship them: `tokenizer.json` of Hugging Face (any kind: byte-level BPE, SentencePiece, ...) with
 * `tokenizer_config.json`, which names the tokens that begin and end a document; `tokenizer.model` of Llama 2 (SentencePiece) and of
 * Llama 3 (ranks of tiktoken); and the header of a file of GGUF.
 * @module
 */
import { fromFileUrl } from "@std/path";
import { Kitoken } from "kitoken/full";
import { BYTES, byteTokenizer } from "./byte_tokenizer.ts";
import { DataError } from "./error.ts";
import { isGgufName } from "./gguf.ts";
import { ggufTokenizer } from "./gguf_tokenizer.ts";
import { addsBos, spellOutSplits, tokenBytes, type TokenizerFiles, tokenText } from "./tokenizer_json.ts";
import { cutsOf, partsOf } from "./long_text.ts";
import { readSentencePiece, unigramIds } from "./sentencepiece.ts";
import { readBytes, show, toUrl, within } from "./source.ts";
import { isTiktoken, readTiktoken } from "./tiktoken.ts";
import { WordIds, wordsOf } from "./word_ids.ts";

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
  readonly #name: string;
  readonly #kitoken: Kitoken;
  /** Special tokens as a text may spell them; null: there are none. */
  readonly #spelled: RegExp | null;
  /** Where long texts are cut. */
  readonly #cuts: RegExp | undefined;
  /** Knows no special token. It is made when a text spells one: Kitoken splits at them, even where they are text. */
  #plain: Kitoken | undefined;
  /** What each token stands for. */
  #tokens: readonly Uint8Array[] | undefined;
  /** Of SentencePiece's unigrams: their own way. */
  readonly #unigrams: ReturnType<typeof unigramIds> | undefined;
  /** Of byte-level BPE: ids of words, which are kept. */
  readonly #words: WordIds | undefined;

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
    this.#name = names.json;
    this.#kitoken = kitoken;
    const spelled = added.filter(({ special }) => special).map(({ content }) =>
      content.replace(/[^\p{L}\p{N}]/gu, "\\$&")
    );
    this.#spelled = spelled.length > 0 ? new RegExp(spelled.join("|")) : null;
    this.#unigrams = names.unigrams ? unigramIds(kitoken, json) : undefined;
    this.#cuts = cutsOf(json);
    const words = wordsOf(json);
    this.#words = words && new WordIds(words, (text) => kitoken.encode(text, false));
    this.vocabSize = last + 1;
    this.bosId = special("bos_token");
    this.eosId = special("eos_token");
  }

  /** Opens a folder (`model.hf_assets_path`) with `tokenizer.json` and `tokenizer_config.json`, or else with `tokenizer.model`; or one of
   * these files, or a file of GGUF. `"bytes"` is a tokenizer without files, whose tokens are bytes.
   * @throws {DataError} when one is missing or cannot be used. */
  static async open(location: string | URL): Promise<Tokenizer> {
    if (location === BYTES) return Tokenizer.#of(byteTokenizer(), BYTES);
    const url = toUrl(location);
    if (url.protocol === "file:" && isGgufName(url.pathname)) {
      const path = fromFileUrl(url);
      return Tokenizer.#of(ggufTokenizer(path), path);
    }
    const isFile = /\.(json|model)$/.test(url.pathname), file = isFile ? url : within(url, "tokenizer.json");
    const bytes = await readBytes(file), configFile = new URL("tokenizer_config.json", file);
    const config = await readBytes(configFile), said = config && parse<TokenizerFiles["config"]>(config, configFile);
    const model = bytes === undefined && !isFile ? new URL("tokenizer.model", file) : file;
    if (model.pathname.endsWith(".model")) {
      const content = bytes ?? await readBytes(model), name = show(model);
      if (content === undefined) throw await missing(file);
      const files = isTiktoken(content) ? readTiktoken(content, name, said) : readSentencePiece(content, name, said);
      return files.json.model.type === "Unigram"
        ? new Tokenizer(files, Kitoken.from_sentencepiece(content), {
          json: name,
          config: show(configFile),
          unigrams: true,
        })
        : Tokenizer.#of(files, name, show(configFile));
    }
    if (bytes === undefined) throw await missing(file);
    if (said === undefined) throw await missing(configFile);
    const json = parse<TokenizerFiles["json"]>(bytes, file), kitoken = kitokenOf(json, show(file));
    return new Tokenizer({ json, config: said }, kitoken, { json: show(file), config: show(configFile) });
  }

  /** One whose files are made. */
  static #of(files: TokenizerFiles, name: string, config: string = name): Tokenizer {
    return new Tokenizer(files, kitokenOf(files.json, name), { json: name, config });
  }

  /** Does its model expect a text to begin with the token that begins a document? Undefined where its files do not say. */
  get addsBos(): boolean | undefined {
    return addsBos(this.files);
  }

  /** The ids of a text. */
  encode(text: string, { bos = false, eos = false, special = false }: EncodeOptions = {}): Int32Array {
    const parts = [...partsOf(text, this.#cuts)].map((part) => this.#encode(part, special));
    const begin = bos && this.bosId !== null ? 1 : 0, end = eos && this.eosId !== null ? 1 : 0;
    const ids = new Int32Array(begin + parts.reduce((sum, part) => sum + part.length, 0) + end);
    if (begin) ids[0] = this.bosId!;
    let at = begin;
    for (const part of parts) {
      ids.set(part, at);
      at += part.length;
    }
    if (end) ids[at] = this.eosId!;
    return ids;
  }

  #encode(text: string, special: boolean): Uint32Array {
    if (this.#unigrams && special) {
      const what = "its special tokens cannot be taken out of a text, as it is a model of unigrams";
      throw bad(this.#name, what, "BPE, as Llama's tokenizers are", "choose another tokenizer for chats");
    }
    if (this.#unigrams) return this.#unigrams(text);
    const isSpelled = this.#spelled?.test(text) ?? false;
    if (isSpelled && !special) return (this.#plain ??= withoutSpecials(this.files.json)).encode(text);
    return isSpelled || !this.#words ? this.#kitoken.encode(text, special) : this.#words.encode(text);
  }

  /** The bytes that a token stands for; SentencePiece's ▁ is a space.
   * @internal */
  bytesOf(id: number): Uint8Array {
    return (this.#tokens ??= tokenBytes(this.files.json))[id];
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

  /** Bytes of a text in which tokens occur that often; special ones have none.
   * @param counts how often, by id. */
  textBytes(counts: ArrayLike<number>): number {
    // Behind others, as some tokenizers drop the space before a token that begins a text.
    const before = [...this.encode("a")], own = this.decodeBytes(before, { special: false }).length;
    let bytes = 0;
    for (let id = 0; id < counts.length; id++) {
      if (counts[id] === 0) continue;
      bytes += counts[id] * (this.decodeBytes([...before, id], { special: false }).length - own);
    }
    return bytes;
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
  /** Is the former a model of SentencePiece's unigrams? */
  readonly unigrams?: boolean;
}

function kitokenOf(json: TokenizerFiles["json"], name: string): Kitoken {
  try {
    return Kitoken.from_tokenizers(new TextEncoder().encode(JSON.stringify(spellOutSplits(json))));
  } catch (error) {
    throw bad(name, String(error), "a tokenizer.json as Hugging Face's tokenizers library writes it");
  }
}

/** The same without special tokens. An unknown one is kept only where it is needed: with tokens for all bytes it never is. */
function withoutSpecials(json: TokenizerFiles["json"]): Kitoken {
  const { model } = json, unknown = model.byte_fallback ? null : model.unk_token ?? null;
  const added = (json.added_tokens ?? []).filter(({ special, content }) => !special || content === unknown);
  return kitokenOf({ ...json, added_tokens: added, model: { ...model, unk_token: unknown } }, "tokenizer.json");
}

/** The error of a file that there is not. */
async function missing(file: URL): Promise<DataError> {
  return new DataError({
    code: "no_such_file",
    what: `Cannot open tokenizer: there is no ${show(file)}${await besides(file)}`,
    expected:
      "a folder with tokenizer.json and tokenizer_config.json, such as data/sample or that of a model, or with tokenizer.model",
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

function bad(name: string, why: string, expected: string, fix = "download it again, or correct it"): DataError {
  return new DataError({
    code: "bad_tokenizer",
    what: `Cannot use ${name}: ${why}`,
    expected,
    fix,
  });
}
