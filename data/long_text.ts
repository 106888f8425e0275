/** Texts of any length in bounded memory: they are cut where no token can lie across, so that the ids of the parts are those of the whole.
 * @module */
import type { TokenizerJson } from "./tokenizer_json.ts";

/** Characters of a part, about: it ends at the first good place behind so many. */
export const PART_LENGTH: number = 1 << 18;

/** Finds the places where a tokenizer's texts may be cut; undefined: none is known.
 *
 * Byte-level BPE is cut before a single space between words, and behind a single end of a line before a letter: there its pre-tokenizers
 * cut, too, and see the same on either side. SentencePiece is cut at a single space, which is left out where every text is given one. In
 * either case no token of the vocabulary may reach across. */
export function cutsOf({ model, normalizer, pre_tokenizer }: TokenizerJson): RegExp | undefined {
  const { vocab } = model, tokens = Array.isArray(vocab) ? vocab.map(([token]) => token) : Object.keys(vocab);
  const none = (across: RegExp) => !tokens.some((token) => across.test(token));
  const normalizes = JSON.stringify(normalizer ?? null), splits = JSON.stringify(pre_tokenizer ?? null);
  if (splits.includes('"ByteLevel"') && !splits.includes('"add_prefix_space":true') && !normalizer) {
    const places = [
      ...(none(/[!-~]Ġ/) ? ["(?<=[!-~])(?= [A-Za-z])"] : []),
      ...(none(/Ċ[^ĠĊĉč]/) ? ["(?<=\\S\\n)(?=\\p{L})"] : []),
    ];
    return places.length > 0 ? new RegExp(places.join("|"), "gu") : undefined;
  }
  if (normalizes.includes('"content":"▁"') && !pre_tokenizer && none(/[^▁]▁/)) {
    return normalizes.includes('"prepend":"▁"') ? /(?<=[^\s▁]) (?=[^\s▁])/gu : /(?<=[^\s▁])(?= [^\s▁])/gu;
  }
  return undefined;
}

/** The parts of a text. */
export function* partsOf(
  text: string,
  cuts: RegExp | undefined,
  length: number = PART_LENGTH,
): Generator<string, void> {
  let start = 0;
  while (cuts && text.length - start > length) {
    cuts.lastIndex = start + length;
    const cut = cuts.exec(text);
    if (cut === null) break;
    yield text.slice(start, cut.index);
    start = cut.index + cut[0].length;
  }
  yield start === 0 ? text : text.slice(start);
}
