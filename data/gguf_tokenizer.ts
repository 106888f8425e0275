/** Tokenizers in GGUF files, `tokenizer.ggml.*`, from and to what Hugging Face's `tokenizer.json` and `tokenizer_config.json` say. Two
 * models there are: `gpt2` is byte-level BPE with merges, whose way of splitting text has a name; `llama` is SentencePiece's BPE, whose
 * scores are put in order as merges. Sources: llama.cpp's `llama-vocab.cpp`, transformers' `convert_slow_tokenizer.py`.
 * @module */
import { type Gguf, ggufError, type GgufValue, readGguf } from "./gguf.ts";
import { addedTokens, Kind, sentencePieceJson } from "./sentencepiece.ts";
import { BYTE_LEVEL, byteLevelJson, LLAMA3, splitBy, type TokenizerFiles, tokenText } from "./tokenizer_json.ts";

/** Ways to split a text, each with the names that llama.cpp has for it; the first is written. */
const SPLITS: readonly {
  readonly names: readonly string[];
  readonly parts: readonly object[];
  /** Is a word that is in the vocabulary one token, whatever the merges say? */
  readonly ignoreMerges?: true;
}[] = [
  { names: ["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"], parts: splitBy(LLAMA3), ignoreMerges: true },
  { names: ["dbrx", "smaug-bpe"], parts: splitBy(LLAMA3) },
  { names: ["qwen2", "deepseek-r1-qwen"], parts: splitBy(LLAMA3.replace("\\p{N}{1,3}", "\\p{N}")) },
  { names: ["gpt-2", "phi-2"], parts: [{ ...BYTE_LEVEL, use_regex: true }] },
  {
    names: ["smollm", "codeshell", "exaone", "minerva-7b"],
    parts: [{ type: "Digits", individual_digits: true }, { ...BYTE_LEVEL, use_regex: true }],
  },
];

/** A part of a pre-tokenizer as far as it matters how it splits. */
function splitText(part: Record<string, unknown>): string {
  switch (part.type) {
    case "Split":
      return `${part.behavior} ${part.invert === true} ${JSON.stringify(part.pattern)}`;
    case "Digits":
      return `digits ${part.individual_digits === true}`;
    case "ByteLevel":
      return `bytes ${part.use_regex !== false} ${part.add_prefix_space === true}`;
    default:
      return JSON.stringify(part);
  }
}

/** How a pre-tokenizer splits a text. */
function splitsText(pre: unknown): string {
  const { type, pretokenizers } = (pre ?? {}) as { type?: string; pretokenizers?: Record<string, unknown>[] };
  const parts = type === "Sequence" ? pretokenizers ?? [] : [pre as Record<string, unknown>];
  return parts.map((part) => splitText(part)).join("; ");
}

/** The ids that end what a model says: the tokenizer's, and those of GGUF that end a turn or a message. */
export function ggufEndIds({ metadata }: Gguf): number[] {
  const ids = ["eos", "eot", "eom"].map((key) => metadata.get(`tokenizer.ggml.${key}_token_id`));
  return ids.filter((id) => typeof id === "number");
}

/** The tokenizer of a GGUF file.
 * @throws {DataError} when it has none, or one that cannot be expressed. */
export function ggufTokenizer(path: string): TokenizerFiles {
  const file = readGguf(path), { metadata } = file, key = (name: string) => metadata.get(`tokenizer.ggml.${name}`);
  const refuse = (what: string, expected: string): never => {
    const fix = "open the model with its tokenizer's own folder, which has tokenizer.json (--tokenizer FOLDER)";
    throw ggufError(path, what, expected, fix);
  };
  const model = key("model"), tokens = key("tokens"), types = key("token_type");
  if (!isListOf(tokens, "string")) refuse("it has no tokenizer (tokenizer.ggml.tokens)", "the tokens of its model");
  const texts = tokens as string[],
    kinds = isListOf(types, "number") ? types as number[] : texts.map(() => Kind.normal);
  const special = (id: GgufValue | undefined) => typeof id === "number" ? texts[id] ?? null : null;
  const template = metadata.get("tokenizer.chat_template"), addBos = key("add_bos_token");
  const config = {
    bos_token: special(key("bos_token_id")),
    eos_token: special(key("eos_token_id")),
    // llama.cpp adds it for these, unless the file says otherwise.
    add_bos_token: typeof addBos === "boolean"
      ? addBos
      : model === "llama" || SPLITS[0].names.includes(key("pre") as string),
    ...(typeof template === "string" ? { chat_template: template } : {}),
    tokenizer_class: "PreTrainedTokenizerFast",
  };
  const { bos_token } = config, bos = config.add_bos_token ? bos_token : null;
  if (model === "gpt2") {
    const pre = key("pre"), split = SPLITS.find(({ names }) => names.includes(pre as string)), merges = key("merges");
    if (!split) {
      const names = SPLITS.flatMap(({ names }) => names).join(", ");
      return refuse(
        `its tokenizer splits text as ${JSON.stringify(pre ?? "default")} does (tokenizer.ggml.pre)`,
        names,
      );
    }
    if (!isListOf(merges, "string")) return refuse("its tokenizer has no merges", "byte-level BPE");
    const json = byteLevelJson({
      ...{ tokens: texts, added: addedTokens(texts, kinds), bos, parts: split.parts },
      merges: (merges as string[]).map((merge) => merge.split(" ") as [string, string]),
      ignoreMerges: split.ignoreMerges,
    });
    return { json, config };
  }
  if (model !== "llama") return refuse(`its tokenizer is ${JSON.stringify(model)}`, '"gpt2" or "llama"');
  const scores = key("scores");
  if (!isListOf(scores, "number")) return refuse("its tokenizer has no scores", "SentencePiece's BPE");
  const json = sentencePieceJson({
    pieces: texts.map((text, id) => ({ text, score: (scores as number[])[id], kind: kinds[id] })),
    bos,
    addPrefix: key("add_space_prefix") !== false,
  });
  return { json, config };
}

function isListOf(value: GgufValue | undefined, type: "string" | "number"): boolean {
  return Array.isArray(value) && value.every((x) => typeof x === type);
}

/** A list of values, all of one type, or a value; as a writer needs it. */
export type NewGgufValue =
  | { readonly type: "u32" | "i32" | "f32" | "u64"; readonly value: number }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "array"; readonly of: "i32" | "f32"; readonly value: readonly number[] }
  | { readonly type: "array"; readonly of: "string"; readonly value: readonly string[] };

/** What a GGUF file is to say of a tokenizer.
 * @param size of the model's vocabulary: rows without a token get names that no text has.
 * @param from the tokenizer's folder, for errors. @throws {DataError} when the format has no name for such a tokenizer. */
export function toGgufTokenizer(
  files: TokenizerFiles,
  { size, from, bos, template }: { size: number; from: string; bos: boolean; template: string | null },
): Map<string, NewGgufValue> {
  const { json, config } = files, { model } = json;
  const refuse = (what: string, expected: string): never => {
    throw ggufError(from, what, expected, "choose a tokenizer of such a kind, or write the model as a folder");
  };
  if (model.type !== "BPE" || Array.isArray(model.vocab)) {
    refuse(`its model is ${JSON.stringify(model.type)}`, "BPE, byte-level or SentencePiece's");
  }
  const vocab = Object.entries(model.vocab as Record<string, number>), merges = model.merges ?? [];
  const texts = Array.from({ length: size }, (_, id) => `[PAD${id}]`), kinds = texts.map((): number => Kind.unused);
  const last = Math.max(...vocab.map(([, id]) => id), ...(json.added_tokens ?? []).map(({ id }) => id));
  if (last >= size) refuse(`it has ${last + 1} tokens`, `no more than the model, which has ${size}`);
  for (const [text, id] of vocab) {
    const isByte = model.byte_fallback && /^<0x[0-9A-F]{2}>$/.test(text);
    texts[id] = text;
    kinds[id] = isByte ? Kind.byte : text === model.unk_token ? Kind.unknown : Kind.normal;
  }
  for (const { id, content, special } of json.added_tokens ?? []) {
    texts[id] = content;
    if (kinds[id] !== Kind.unknown) kinds[id] = special ? Kind.control : Kind.userDefined;
  }
  const pairs = merges.map((merge) => typeof merge === "string" ? merge.split(" ") as [string, string] : merge);
  const made = new Map<string, NewGgufValue>(),
    set = (key: string, value: NewGgufValue) => {
      made.set(`tokenizer.ggml.${key}`, value);
    };
  if (model.byte_fallback) {
    const normalizers = JSON.stringify(json.normalizer ?? null), scores = texts.map(() => 0);
    // A token's score is that of the first pair that makes it, so that the best one is what it was among the merges.
    pairs.forEach((pair, rank) => {
      const id = (model.vocab as Record<string, number>)[pair.join("")];
      if (id !== undefined && scores[id] === 0) scores[id] = -1 - rank;
    });
    if (!normalizers.includes("▁")) {
      refuse(`its normalizer is ${normalizers}`, "spaces as ▁, as SentencePiece has them");
    }
    set("model", { type: "string", value: "llama" });
    set("pre", { type: "string", value: "default" });
    set("scores", { type: "array", of: "f32", value: scores });
    set("add_space_prefix", { type: "bool", value: normalizers.includes('"Prepend"') });
  } else {
    const splits = splitsText(json.pre_tokenizer), ignores = model.ignore_merges === true;
    const split = SPLITS.find((s) =>
      splitsText({ type: "Sequence", pretokenizers: s.parts }) === splits && (s.ignoreMerges ?? false) === ignores
    );
    if (!split || json.normalizer) {
      const { normalizer, pre_tokenizer } = json;
      return refuse(
        `llama.cpp has no name for how it splits text: ${JSON.stringify({ normalizer, pre_tokenizer })}`,
        `one of ${SPLITS.map(({ names }) => names[0]).join(", ")}`,
      );
    }
    set("model", { type: "string", value: "gpt2" });
    set("pre", { type: "string", value: split.names[0] });
    set("merges", { type: "array", of: "string", value: pairs.map((pair) => pair.join(" ")) });
  }
  set("tokens", { type: "array", of: "string", value: texts });
  set("token_type", { type: "array", of: "i32", value: kinds });
  set("add_bos_token", { type: "bool", value: bos });
  for (const key of ["bos", "eos"] as const) {
    const id = texts.indexOf(tokenText(config[`${key}_token`]) ?? "");
    if (id >= 0) set(`${key}_token_id`, { type: "u32", value: id });
  }
  if (template !== null) made.set("tokenizer.chat_template", { type: "string", value: template });
  return made;
}
