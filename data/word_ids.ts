/**
 * Byte-level BPE word by word. Its pre-tokenizer cuts a text into words, across which no merge reaches, and most words of a
 * text have come before: their ids are kept, so that the text need not be merged anew.
 * @module
 */
import { spellOutSplits, type TokenizerJson } from "./tokenizer_json.ts";

/** The most words that are kept; then it begins anew. */
const MOST_WORDS = 1 << 17;
/** Longer words hardly come again. */
const LONGEST_WORD = 32;

/** The words of a text as a tokenizer cuts it; undefined: it is none that does so by one pattern, and by nothing else.
 * Spaces are Unicode's, as they are for Python's `tokenizers`; JavaScript's `\s` has others. */
export function wordsOf(json: TokenizerJson): RegExp | undefined {
  type Part = { readonly type?: string; readonly pretokenizers?: readonly Part[]; readonly [key: string]: unknown };
  const { model, normalizer, pre_tokenizer, added_tokens: added } = spellOutSplits(json);
  const [split, bytes, ...more] = (pre_tokenizer as Part | null)?.pretokenizers ?? [];
  const isPlain = model.type === "BPE" && !normalizer && (added ?? []).every(({ special }) => special) &&
    more.length === 0;
  const pattern = (split?.pattern as { readonly Regex?: string } | undefined)?.Regex;
  if (!isPlain || pattern === undefined || split.behavior !== "Isolated" || split.invert) return undefined;
  if (bytes?.type !== "ByteLevel" || bytes.use_regex !== false || bytes.add_prefix_space) return undefined;
  try {
    return new RegExp(pattern.replaceAll("\\s", "\\p{White_Space}").replaceAll("\\S", "\\P{White_Space}"), "gu");
  } catch {
    return undefined; // JavaScript has no such pattern
  }
}

/** Ids of texts, of which it keeps those of words. */
export class WordIds {
  readonly #words: RegExp;
  readonly #encode: (text: string) => Uint32Array;
  readonly #kept = new Map<string, Uint32Array>();

  /** @param words of {@linkcode wordsOf}. @param encode gives the ids of any text. */
  constructor(words: RegExp, encode: (text: string) => Uint32Array) {
    this.#words = words;
    this.#encode = encode;
  }

  /** The ids of a text. */
  encode(text: string): Uint32Array {
    const words = text.match(this.#words) ?? [];
    let length = 0;
    for (const word of words) length += word.length;
    if (length !== text.length) return this.#encode(text); // some of it is no word
    const ids = new Uint32Array(3 * text.length); // a token is a byte at least
    let at = 0;
    for (const word of words) {
      const own = this.#kept.get(word) ?? this.#add(word);
      for (let n = 0; n < own.length; n++) ids[at++] = own[n];
    }
    return ids.slice(0, at);
  }

  #add(word: string): Uint32Array {
    const ids = this.#encode(word);
    if (word.length > LONGEST_WORD) return ids;
    if (this.#kept.size >= MOST_WORDS) this.#kept.clear();
    this.#kept.set(word, ids);
    return ids;
  }
}
