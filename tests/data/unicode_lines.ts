/** Lines out of all planes of Unicode, the same ones that `tools/make_tokenizer_goldens.py` makes, and hashes of their ids. @module */
import { createHash } from "node:crypto";

const SPACES = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\u00a0", "\u2003", "\u3000", " \n", "\u2581"];
const WORDS = [
  ...[
    "the",
    "The",
    " of",
    " and",
    "'s",
    "'LL",
    "don't",
    "Union",
    " Congress",
    "1789",
    "3.14",
    "12345678",
    "caf\u00e9",
    "cafe\u0301",
  ],
  ...[
    "\u65e5\u672c\u8a9e",
    "\u0645\u0631\u062d\u0628\u0627",
    "\u{1f468}\u200d\u{1f469}\u200d\u{1f467}",
    "\u{1f1e9}\u{1f1ea}",
  ],
  ...[
    "<s>",
    "</s>",
    "<unk>",
    "<0x0A>",
    "<|begin_of_text|>",
    "<|eot_id|>",
    "...",
    "!?",
    "{}",
    "==",
    "/*",
    "\ufb01",
    "\uff21",
    "\u017f",
  ],
];

/** Lines of spaces, words, ASCII, and characters of the basic plane and of all planes. */
export function unicodeLines(count: number): string[] {
  let state = 1;
  const below = (n: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) % n;
  };
  const part = () => {
    const kind = below(6);
    if (kind === 0) return SPACES[below(SPACES.length)];
    if (kind <= 2) return WORDS[below(WORDS.length)];
    if (kind === 3) return String.fromCodePoint(32 + below(95));
    const code = below((kind === 4 ? 0x10000 : 0x110000) - 0x800);
    return String.fromCodePoint(code < 0xd800 ? code : code + 0x800);
  };
  return Array.from({ length: count }, () => Array.from({ length: 1 + below(40) }, part).join(""));
}

/** Hash of texts. */
export const hashTexts = (texts: readonly string[]): string =>
  createHash("sha256").update(texts.join("\0")).digest("hex");

/** Hash of the ids of each text, as 32-bit integers with their number before them. */
export function hashIds(texts: readonly string[], encode: (text: string) => Int32Array): string {
  const hash = createHash("sha256");
  for (const text of texts) {
    const ids = encode(text);
    hash.update(new Uint8Array(Int32Array.of(ids.length, ...ids).buffer));
  }
  return hash.digest("hex");
}
