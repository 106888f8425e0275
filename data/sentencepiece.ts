/** SentencePiece's models, such as Llama 2's `tokenizer.model`, as what Hugging Face's `tokenizer.json` says: BPE, whose scores are put in
 * order as merges, and unigrams. Sources: sentencepiece_model.proto, transformers' `convert_slow_tokenizer.py`.
 * @module */
import type { Kitoken } from "kitoken/full";
import { BinaryReader, type WireType } from "@bufbuild/protobuf/wire";
import { DataError } from "./error.ts";
import { type AddedToken, addedToken, textBegins, type TokenizerFiles, type TokenizerJson } from "./tokenizer_json.ts";

/** Kinds of pieces: `SentencePiece.Type`, and `tokenizer.ggml.token_type`. */
export const Kind = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** A token of a model. */
export interface Piece {
  readonly text: string;
  /** Log probability of a unigram; of BPE, the highest one is merged first. */
  readonly score: number;
  /** One of {@linkcode Kind}. */
  readonly kind: number;
}

/** A model as far as it matters for encoding. */
export interface SentencePieceModel {
  readonly pieces: readonly Piece[];
  /** Default: `bpe`. */
  readonly type?: "bpe" | "unigram";
  /** The token that every text begins with, or null. */
  readonly bos: string | null;
  /** Does a text begin with a space of its own? */
  readonly addPrefix: boolean;
  /** Are spaces at both ends left out, and several joined? Default: no. */
  readonly joinSpaces?: boolean;
}

/** Spaces that are left out at the end: those of the text may be written as SentencePiece does it. */
const END_SPACES = "[ ▁]+$";

/** Values of `TrainerSpec.model_type`. */
const MODEL_TYPES = ["", "unigram", "bpe", "word", "char"];

/** What a `tokenizer.model` of SentencePiece says, with the names of the tokens that begin and end a text.
 * @param config of the `tokenizer_config.json` beside it, which has the last word.
 * @throws {DataError} when it is none, or one whose ids cannot be given exactly. */
export function readSentencePiece(
  bytes: Uint8Array,
  name: string,
  config: Readonly<Record<string, unknown>> = {},
): TokenizerFiles {
  const refuse = (why: string, expected: string) =>
    new DataError({
      code: "bad_tokenizer",
      what: `Cannot use ${name}: ${why}`,
      expected,
      fix: "give the folder of the same tokenizer that has tokenizer.json, or correct the path",
    });
  let model: ReturnType<typeof parse>;
  try {
    model = parse(bytes);
  } catch (error) {
    throw refuse((error as Error).message, "a model of SentencePiece, or ranks of tiktoken");
  }
  const { pieces, trainer, normalizer } = model, type = MODEL_TYPES[trainer.type];
  if (pieces.length === 0) throw refuse("it has no pieces", "a model of SentencePiece, or ranks of tiktoken");
  if (type !== "bpe" && type !== "unigram") throw refuse(`its type is ${type}`, "BPE or unigram");
  if (normalizer.table > 0) {
    throw refuse(`it normalizes text by a table (${normalizer.name})`, "the normalization identity, as Llama 2 has it");
  }
  if (!pieces.some(({ kind }) => kind === Kind.byte)) {
    throw refuse("it has no tokens of bytes", "a model with byte fallback, which has a token for any text");
  }
  if (!normalizer.escape || trainer.suffix) throw refuse("its spaces are not before words", "spaces as ▁ before words");
  const text = (id: number, kind: number) => pieces[id]?.kind === kind ? pieces[id].text : null;
  const [bos, eos, unk] = [
    text(trainer.bos, Kind.control),
    text(trainer.eos, Kind.control),
    text(trainer.unk, Kind.unknown),
  ];
  const json = sentencePieceJson({
    pieces,
    type,
    bos,
    addPrefix: normalizer.addPrefix,
    joinSpaces: normalizer.joinSpaces,
  });
  const special = { bos_token: bos, eos_token: eos, unk_token: unk, tokenizer_class: "PreTrainedTokenizerFast" };
  return { json, config: { ...special, ...config } };
}

/** Calls what reads a field, by its number; others are left out. */
function message(bytes: Uint8Array, readers: Readonly<Record<number, (reader: BinaryReader) => void>>): void {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, wire] = reader.tag(), read = readers[field];
    if (read) read(reader);
    else reader.skip(wire as WireType, field);
  }
}

/** `ModelProto`. */
function parse(bytes: Uint8Array) {
  const pieces: Piece[] = [];
  const trainer = { type: 1, suffix: false, unk: 0, bos: 1, eos: 2 };
  const normalizer = { name: "", table: 0, addPrefix: true, joinSpaces: true, escape: true };
  message(bytes, {
    1: (reader) => {
      const piece = { text: "", score: 0, kind: Kind.normal as number };
      message(reader.bytes(), {
        1: (r) => piece.text = r.string(),
        2: (r) => piece.score = r.float(),
        3: (r) => piece.kind = r.int32(),
      });
      pieces.push(piece);
    },
    2: (reader) =>
      message(reader.bytes(), {
        3: (r) => trainer.type = r.int32(),
        24: (r) => trainer.suffix = r.bool(),
        40: (r) => trainer.unk = r.int32(),
        41: (r) => trainer.bos = r.int32(),
        42: (r) => trainer.eos = r.int32(),
      }),
    3: (reader) =>
      message(reader.bytes(), {
        1: (r) => normalizer.name = r.string(),
        2: (r) => normalizer.table = r.bytes().length,
        3: (r) => normalizer.addPrefix = r.bool(),
        4: (r) => normalizer.joinSpaces = r.bool(),
        5: (r) => normalizer.escape = r.bool(),
      }),
  });
  return { pieces, trainer, normalizer };
}

/** The `tokenizer.json` of a model. */
export function sentencePieceJson(
  { pieces, type = "bpe", bos, addPrefix, joinSpaces = false }: SentencePieceModel,
): TokenizerJson {
  const texts = pieces.map(({ text }) => text), kinds = pieces.map(({ kind }) => kind);
  const unknown = kinds.indexOf(Kind.unknown),
    replace = (pattern: object, content: string) => ({ type: "Replace", pattern, content });
  return {
    ...{ version: "1.0", truncation: null, padding: null },
    added_tokens: addedTokens(texts, kinds),
    post_processor: bos === null ? null : textBegins(bos, texts),
    model: type === "bpe"
      ? {
        ...{ type: "BPE", dropout: null, continuing_subword_prefix: null, end_of_word_suffix: null },
        ...{
          unk_token: unknown < 0 ? null : texts[unknown],
          fuse_unk: true,
          byte_fallback: true,
          ignore_merges: false,
        },
        vocab: Object.fromEntries(texts.map((text, id) => [text, id])),
        merges: mergesByScore(pieces),
      }
      : {
        type: "Unigram",
        unk_id: unknown,
        byte_fallback: true,
        vocab: pieces.map(({ text, score }) => [text, score] as const),
      },
    normalizer: {
      type: "Sequence",
      normalizers: [
        ...(joinSpaces ? [replace({ Regex: `^ +|${END_SPACES}` }, ""), replace({ Regex: " {2,}" }, " ")] : []),
        ...(addPrefix ? [{ type: "Prepend", prepend: "▁" }] : []),
        replace({ String: " " }, "▁"),
      ],
    },
    pre_tokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: [
        replace({ String: "▁" }, " "),
        ...[{ type: "ByteFallback" }, { type: "Fuse" }],
        ...(addPrefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
      ],
    },
  };
}

/** The tokens that are taken out of a text before the model sees it. */
export function addedTokens(texts: readonly string[], kinds: readonly number[]): AddedToken[] {
  const added: readonly number[] = [Kind.control, Kind.userDefined, Kind.unknown];
  return texts.flatMap((text, id) =>
    added.includes(kinds[id]) ? [addedToken(id, text, kinds[id] !== Kind.userDefined)] : []
  );
}

/** All pairs of tokens that make a token, the best one's first; those of one token by the numbers of their parts. */
function mergesByScore(pieces: readonly Piece[]): [string, string][] {
  const ids = new Map(pieces.map(({ text }, id) => [text, id]));
  const pairs = pieces.flatMap(({ text, score, kind }) => {
    if (kind !== Kind.normal) return [];
    const characters = [...text], found: { first: number; second: number; score: number }[] = [];
    for (let cut = 1; cut < characters.length; cut++) {
      const first = ids.get(characters.slice(0, cut).join("")), second = ids.get(characters.slice(cut).join(""));
      if (first !== undefined && second !== undefined) found.push({ first, second, score });
    }
    return found.sort((a, b) => a.first - b.first || a.second - b.second);
  });
  return pairs.sort((a, b) => b.score - a.score).map(({ first, second }) => [pieces[first].text, pieces[second].text]);
}

/** The ids of texts by a model of unigrams. */
export function unigramIds(
  kitoken: Pick<Kitoken, "encode">,
  { model: { vocab }, normalizer }: TokenizerJson,
): (text: string) => Uint32Array {
  const pieces = vocab as readonly (readonly [string, number])[],
    joins = JSON.stringify(normalizer).includes(END_SPACES);
  const byteOf = (text: string) => parseInt(/^<0x([0-9A-F]{2})>$/.exec(text)?.[1] ?? "", 16);
  const bytes = new Map(
    pieces.map(([text], id): [number, number] => [id, byteOf(text)]).filter(([, byte]) => !Number.isNaN(byte)),
  );
  const atEnd = new RegExp(END_SPACES, "u");
  return (text) => orderBytes(kitoken.encode(joins ? text.replace(atEnd, "") : text), bytes);
}

/** Puts the tokens of bytes into their order, in place: of a character that is no piece, Kitoken gives the last byte first. What is in
 * order already stays as it is. */
function orderBytes(ids: Uint32Array, bytes: ReadonlyMap<number, number>): Uint32Array {
  const continues = (id: number) => ((bytes.get(id) ?? 0) & 0xc0) === 0x80;
  for (let at = 0; at < ids.length;) {
    const start = at, isBackward = continues(ids[at]);
    at++;
    if (isBackward) {
      while (at < ids.length && continues(ids[at])) at++;
      ids.subarray(start, ++at).reverse();
    } else if ((bytes.get(ids[start]) ?? 0) >= 0xc0) {
      while (at < ids.length && continues(ids[at])) at++;
    }
  }
  return ids;
}
