/** Llama 3's `tokenizer.model`: a line for each token with its bytes in base64 and its rank, as tiktoken reads it. How text is split, and
 * which tokens are special, the file does not say: Meta's code does (`llama3/tokenizer.py`), from which torchtitan has taken it.
 * @module */
import { DataError } from "./error.ts";
import { addedToken, byteCharacters, byteLevelJson, LLAMA3, splitBy, type TokenizerFiles } from "./tokenizer_json.ts";

const [BEGIN, END] = ["<|begin_of_text|>", "<|end_of_text|>"];

/** Special tokens behind those of the file. */
const SPECIAL_TOKENS = 256;

/** Does a file begin as one of ranks does? */
export function isTiktoken(bytes: Uint8Array): boolean {
  return /^[A-Za-z0-9+/]+={0,2} \d+\r?\n/.test(String.fromCharCode(...bytes.subarray(0, 256)));
}

/** What a file of ranks says.
 * @param config of the `tokenizer_config.json` beside it, whose `added_tokens_decoder` may name the special tokens.
 * @throws {DataError} when a line is no token, or ranks are missing. */
export function readTiktoken(
  bytes: Uint8Array,
  name: string,
  config: Readonly<Record<string, unknown>> = {},
): TokenizerFiles {
  const characters = byteCharacters(), tokens: string[] = [];
  new TextDecoder().decode(bytes).split("\n").forEach((line, n) => {
    if (line.trim() === "") return;
    const [base64, rank, ...rest] = line.trimEnd().split(" "), id = Number(rank);
    const text = rest.length === 0 && Number.isSafeInteger(id) && id >= 0 ? bytesOf(base64) : undefined;
    if (!text) throw bad(name, `line ${n + 1} is no token: ${JSON.stringify(line.slice(0, 40))}`);
    if (tokens[id] !== undefined) throw bad(name, `line ${n + 1} has rank ${id} again`);
    tokens[id] = [...text].map((byte) => characters[byte.charCodeAt(0)]).join("");
  });
  const missing = tokens.findIndex((token) => token === undefined); // holes too
  if (missing >= 0) throw bad(name, `it has no token of rank ${missing}`);
  const without = characters.findIndex((character) => !tokens.includes(character));
  if (without >= 0) throw bad(name, `it has no token of the byte ${without}`);
  const added = (specialNames(config) ?? llama3Specials()).map((text, n) => addedToken(tokens.length + n, text));
  const json = byteLevelJson({
    ...{ tokens, added, bos: BEGIN, parts: splitBy(LLAMA3), ignoreMerges: true },
    merges: mergesByRank(tokens),
  });
  return { json, config: { bos_token: BEGIN, eos_token: END, tokenizer_class: "PreTrainedTokenizerFast", ...config } };
}

/** The bytes of base64, as characters; undefined: it is none. */
function bytesOf(base64: string): string | undefined {
  try {
    return atob(base64);
  } catch {
    return undefined;
  }
}

/** Those of Llama 3.0; 3.1 gives names to some that are reserved here. */
function llama3Specials(): string[] {
  const reserved = (n: number) => `<|reserved_special_token_${n}|>`;
  const named = [
    ...[BEGIN, END, reserved(0), reserved(1), reserved(2), reserved(3)],
    ...["<|start_header_id|>", "<|end_header_id|>", reserved(4), "<|eot_id|>"],
  ];
  return [...named, ...Array.from({ length: SPECIAL_TOKENS - named.length }, (_, n) => reserved(n + 5))];
}

/** Those that a configuration names, by their ids. */
function specialNames({ added_tokens_decoder: decoder }: Readonly<Record<string, unknown>>): string[] | undefined {
  if (typeof decoder !== "object" || decoder === null) return undefined;
  const named = Object.entries(decoder as Record<string, { content: string }>);
  return named.sort(([a], [b]) => Number(a) - Number(b)).map(([, { content }]) => content);
}

/** All pairs of tokens that make a token, that of the lowest rank first; those of one token by the ranks of their parts. */
function mergesByRank(tokens: readonly string[]): [string, string][] {
  const ranks = new Map(tokens.map((token, rank) => [token, rank]));
  return tokens.flatMap((token) => {
    const found: [number, number][] = [];
    for (let cut = 1; cut < token.length; cut++) {
      const first = ranks.get(token.slice(0, cut)), second = ranks.get(token.slice(cut));
      if (first !== undefined && second !== undefined) found.push([first, second]);
    }
    found.sort(([a, b], [c, d]) => a - c || b - d);
    return found.map(([first, second]): [string, string] => [tokens[first], tokens[second]]);
  });
}

function bad(name: string, why: string): DataError {
  return new DataError({
    code: "bad_tokenizer",
    what: `Cannot use ${name}: ${why}`,
    expected: "ranks of tiktoken, a line for each token, such as IQ== 0, from 0 on",
    fix: "download it again, or correct it",
  });
}
