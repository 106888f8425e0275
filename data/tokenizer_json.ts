/** What the files of a tokenizer say, as Hugging Face's `tokenizers` writes them, and the parts of it that several kinds have.
 * @module */

/** What a tokenizer's files say. */
export interface TokenizerFiles {
  /** `tokenizer.json` */
  readonly json: TokenizerJson;
  /** `tokenizer_config.json` */
  readonly config: Readonly<Record<string, unknown>>;
}

/** What is asked of `tokenizer.json`. */
export interface TokenizerJson {
  readonly model: TokenizerModel;
  readonly added_tokens?: readonly AddedToken[] | null;
  readonly normalizer?: unknown;
  readonly pre_tokenizer?: unknown;
  readonly post_processor?: unknown;
  readonly decoder?: unknown;
}

/** The field `model` of `tokenizer.json`. */
export interface TokenizerModel {
  readonly type?: string;
  readonly vocab: Readonly<Record<string, number>> | readonly (readonly [string, number])[];
  readonly merges?: readonly (string | readonly [string, string])[];
  readonly ignore_merges?: boolean;
  readonly byte_fallback?: boolean;
  readonly unk_token?: string | null;
  readonly unk_id?: number | null;
  readonly fuse_unk?: boolean;
}

/** A token that is taken out of a text before the model sees it. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special?: boolean;
}

/** Bytes as characters that print, without a space of its own before a text. */
export const BYTE_LEVEL: object = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true };

/** Splits by a pattern; what it finds goes into the vocabulary as bytes. */
export const splitBy = (pattern: string): readonly object[] => [
  { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false },
  { ...BYTE_LEVEL, use_regex: false },
];

/** How Llama 3 splits a text. */
export const LLAMA3: string = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" +
  "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** How GPT-2 splits a text, and `ByteLevel` with `use_regex`. */
const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** The same tokenizer with the way of GPT-2 to split a text spelled out: Kitoken has one of its own for it, which splits otherwise at the
 * ends of lines. */
export function spellOutSplits(json: TokenizerJson): TokenizerJson {
  type Part = { readonly type?: string; readonly use_regex?: boolean; readonly pretokenizers?: readonly Part[] };
  const spelled = (part: Part): readonly object[] => {
    if (part.type === "Sequence") return [{ ...part, pretokenizers: (part.pretokenizers ?? []).flatMap(spelled) }];
    if (part.type !== "ByteLevel" || part.use_regex === false) return [part];
    return [{ ...(splitBy(GPT2)[0]) }, { ...part, use_regex: false }];
  };
  const { pre_tokenizer: pre } = json;
  if (!pre) return json;
  const parts = spelled(pre as Part);
  return { ...json, pre_tokenizer: parts.length === 1 ? parts[0] : { type: "Sequence", pretokenizers: parts } };
}

/** Does a text begin with a token of its own (true, false, or not said)? In `tokenizer_config.json`, else what is put around a text. */
export function addsBos({ json, config }: TokenizerFiles): boolean | undefined {
  if (typeof config.add_bos_token === "boolean") return config.add_bos_token;
  const { post_processor: around } = json, bos = tokenText(config.bos_token);
  if (!around || bos === undefined) return undefined;
  type Part = { type?: string; processors?: Part[]; single?: { SpecialToken?: { id: string } }[] };
  const first = (part: Part): string | undefined =>
    part.type === "Sequence"
      ? part.processors?.map(first).find((token) => token !== undefined)
      : part.single?.[0]?.SpecialToken?.id;
  return first(around as Part) === bos;
}

/** A token as a configuration spells it. */
export function tokenText(value: unknown): string | undefined {
  const text = typeof value === "object" && value !== null ? (value as { content?: unknown }).content : value;
  return typeof text === "string" ? text : undefined;
}

/** What `tokenizer.json` says of texts that begin with a token of their own. */
export function textBegins(token: string, texts: readonly string[]): unknown {
  const begin = { SpecialToken: { id: token, type_id: 0 } };
  const sequence = (id: string, type_id: number) => ({ Sequence: { id, type_id } });
  return {
    type: "TemplateProcessing",
    single: [begin, sequence("A", 0)],
    pair: [begin, sequence("A", 0), sequence("B", 1)],
    special_tokens: { [token]: { id: token, ids: [texts.indexOf(token)], tokens: [token] } },
  };
}

/** A byte-level BPE. */
export interface ByteLevelBpe {
  /** By their ids, as byte-level BPE writes them; those of `added` may be among them. */
  readonly tokens: readonly string[];
  /** Pairs of tokens that become one, the first one first. */
  readonly merges: readonly (readonly [string, string])[];
  /** What splits a text: parts of a pre-tokenizer. */
  readonly parts: readonly object[];
  /** Is a word that is in the vocabulary one token, whatever the merges say? */
  readonly ignoreMerges?: boolean;
  readonly added: readonly AddedToken[];
  /** The token that every text begins with, or null. */
  readonly bos?: string | null;
}

/** The `tokenizer.json` of a byte-level BPE. */
export function byteLevelJson(
  { tokens, merges, parts, ignoreMerges = false, added, bos = null }: ByteLevelBpe,
): TokenizerJson {
  const texts = [...tokens];
  for (const { id, content } of added) texts[id] ??= content;
  return {
    ...{ version: "1.0", truncation: null, padding: null },
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: { type: "Sequence", pretokenizers: parts },
    post_processor: bos === null ? null : textBegins(bos, texts),
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      ...{ type: "BPE", dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null },
      ...{ fuse_unk: false, byte_fallback: false, ignore_merges: ignoreMerges },
      vocab: Object.fromEntries(tokens.map((text, id) => [text, id])),
      merges,
    },
  };
}

/** A token of `added_tokens` that is found wherever it stands. */
export function addedToken(id: number, content: string, special = true): AddedToken {
  return { id, content, ...{ single_word: false, lstrip: false, rstrip: false, normalized: false }, special };
}

/** How byte-level BPE writes each byte, as GPT-2 does: itself where it prints, else the next character from U+0100 on. */
export function byteCharacters(): string[] {
  let next = 0x100;
  const prints = (byte: number) => byte > 0x20 && byte < 0x7f || byte > 0xa0 && byte !== 0xad;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(prints(byte) ? byte : next++));
}

/** The bytes that each token stands for, by its id. */
export function tokenBytes({ model: { vocab }, pre_tokenizer, decoder, added_tokens }: TokenizerJson): Uint8Array[] {
  const utf8 = new TextEncoder(), bytes: Uint8Array[] = [];
  const isByteLevel = JSON.stringify([pre_tokenizer, decoder]).includes('"ByteLevel"');
  const byteOf = new Map(byteCharacters().map((character, byte) => [character, byte]));
  const plain = (text: string): Uint8Array => {
    if (isByteLevel) return Uint8Array.from(text, (character) => byteOf.get(character) ?? 0);
    const byte = /^<0x([0-9A-F]{2})>$/.exec(text)?.[1];
    return byte === undefined ? utf8.encode(text.replaceAll("▁", " ")) : Uint8Array.of(parseInt(byte, 16));
  };
  if (Array.isArray(vocab)) vocab.forEach(([text], id) => bytes[id] = plain(text));
  else for (const [text, id] of Object.entries(vocab)) bytes[id] = plain(text);
  for (const { id, content } of added_tokens ?? []) bytes[id] = utf8.encode(content);
  return bytes;
}
