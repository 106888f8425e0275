import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { SAMPLE } from "../../../data/dataset.ts";
import { Tokenizer } from "../../../data/tokenizer.ts";
import { GenerateError } from "../../../train/generate/error.ts";
import { TextStream } from "../../../train/generate/text_stream.ts";

const tokenizer = await Tokenizer.open(SAMPLE);
const pieceTokenizer = await Tokenizer.open(new URL("../../goldens/gguf/sentencepiece.gguf", import.meta.url));

/** Pieces of a text whose tokens are single bytes. */
function pieces(text: string, stop: string[] = []): { pieces: string[]; stopped: boolean } {
  const bytes = { decodeBytes: (ids: Iterable<number>) => Uint8Array.from(ids) };
  const stream = new TextStream(bytes, { stop }), made: string[] = [];
  for (const byte of new TextEncoder().encode(text)) if (!stream.stopped) made.push(stream.push(byte));
  return { pieces: [...made, stream.end()], stopped: stream.stopped };
}

Deno.test("a character comes whole, with the last of its bytes", () => {
  assertEquals(pieces("aé日😀").pieces, ["a", "", "é", "", "", "日", "", "", "", "😀", ""]);
});

Deno.test("bytes of a character that never ends come as a replacement at the end", () => {
  const stream = new TextStream({ decodeBytes: (ids) => Uint8Array.from(ids) });
  assertEquals([stream.push(0x61), stream.push(0xe6), stream.push(0x97), stream.end()], ["a", "", "", "\ufffd"]);
});

Deno.test("the pieces of a text are the text, whatever its tokens", () => {
  for (const own of [tokenizer, pieceTokenizer]) {
    fc.assert(fc.property(fc.string({ unit: "grapheme", maxLength: 30 }), (text) => {
      const stream = new TextStream(own), tokens = [...own.encode(text)];
      assertEquals(tokens.map((token) => stream.push(token)).join("") + stream.end(), own.decode(tokens));
    }));
  }
});

Deno.test("behind a prompt a word keeps the space before it, and special tokens are no text", () => {
  const [prompt, text] = ["We the", " people of"], all = [...pieceTokenizer.encode(prompt + text)];
  const begin = pieceTokenizer.encode(prompt).length,
    stream = new TextStream(pieceTokenizer, { before: all[begin - 1] });
  const made = [...all.slice(begin), pieceTokenizer.eosId!].map((token) => stream.push(token)).join("");
  assertEquals(made + stream.end(), text);
});

Deno.test("text ends before a stop string, also when it comes in parts, and nothing of it is given away before", () => {
  const { pieces: made, stopped } = pieces("Hi.\nUser: no", ["\nUser:"]);
  assertEquals([made.join(""), stopped], ["Hi.", true]);
  assertEquals(pieces("a\nUs b", ["\nUser:"]), { pieces: ["a", "", "", "", "\nUs ", "b", ""], stopped: false });
  assertEquals(pieces("ab", ["abc"]), { pieces: ["", "", "ab"], stopped: false });
  assertEquals(pieces("aab", ["ab"]).pieces.join(""), "a");
  assertEquals(pieces("xxENDyySTOP", ["STOP", "END"]).pieces.join(""), "xx");
});

Deno.test("what would be the text up to the first stop string is what is given away, wherever it stands", () => {
  const letters = fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 12 });
  const stops = fc.string({ unit: fc.constantFrom("a", "b"), minLength: 1, maxLength: 3 });
  fc.assert(fc.property(letters, stops, (text, stop) => {
    const at = text.indexOf(stop), { pieces: made, stopped } = pieces(text, [stop]);
    assertEquals([made.join(""), stopped], at < 0 ? [text, false] : [text.slice(0, at), true]);
  }));
});

Deno.test("an empty stop string is refused", () => {
  assertThrows(() => new TextStream(tokenizer, { stop: [""] }), GenerateError, "A stop string is empty");
});
