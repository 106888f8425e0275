import { assertEquals, assertThrows } from "@std/assert";
import { DataError } from "../../data/error.ts";
import { isGgufName, readGguf } from "../../data/gguf.ts";
import { temporaryFolder } from "./fixture.ts";

const golden = new URL("../goldens/gguf/", import.meta.url).pathname;

Deno.test("a header that the package gguf has written says what was given to it", () => {
  const { metadata, tensors, fileBytes } = readGguf(`${golden}scaled.gguf`);
  assertEquals(fileBytes, Deno.statSync(`${golden}scaled.gguf`).size);
  assertEquals(metadata.get("general.architecture"), "llama");
  assertEquals(metadata.get("llama.embedding_length"), 16);
  assertEquals(metadata.get("llama.rope.freq_base"), 500);
  const { begin, ...down } = tensors.get("blk.1.ffn_down.weight")!;
  assertEquals([down, begin % 32], [{ shape: [16, 24], type: 0 }, 0]);
  const tokens = readGguf(`${golden}sentencepiece.gguf`).metadata.get("tokenizer.ggml.tokens") as string[];
  assertEquals([tokens.length, ...tokens.slice(0, 4)], [450, "<unk>", "<s>", "</s>", "<0x00>"]);
});

Deno.test("a file that is cut off anywhere in its header is damaged, and none goes unnoticed", async () => {
  await using folder = await temporaryFolder();
  const bytes = await Deno.readFile(`${golden}sentencepiece.gguf`), path = `${folder.path}/cut.gguf`;
  for (const length of [0, 3, 4, 7, 23, 24, 30, 100, 500, 2000, 5000, 9000]) {
    await Deno.writeFile(path, bytes.subarray(0, length));
    assertThrows(() => readGguf(path), DataError, "goes on behind its");
  }
});

Deno.test("what is no GGUF file, or one of another version, is refused by what it says", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/a.gguf`, bytes = await Deno.readFile(`${golden}scaled.gguf`);
  const changed = async (at: number, ...to: number[]) => {
    const copy = bytes.slice();
    copy.set(to, at);
    await Deno.writeFile(path, copy);
    return () => readGguf(path);
  };
  assertThrows(await changed(0, 0x50), DataError, 'it does not begin with "GGUF"');
  assertThrows(await changed(4, 4), DataError, "its version is 4");
  assertThrows(await changed(4, 1), DataError, "it is of version 1, or big-endian");
  assertThrows(await changed(4, 0, 0, 0, 3), DataError, "it is of version 1, or big-endian");
  assertThrows(await changed(24, 255, 255, 255, 255, 255), DataError, "goes on behind its"); // a key of 2^40 bytes
  assertThrows(await changed(24 + 8 + 20, 77), DataError, "has the type 77");
  assertThrows(await changed(24 + 8 + 20, 9, 0, 0, 0, 9), DataError, "a list of lists");
  assertThrows(() => readGguf(`${folder.path}/b.gguf`), DataError, "b.gguf");
});

Deno.test("the name alone says what is opened as a GGUF file", () => {
  assertEquals(["a.gguf", "B.GGUF", "gguf", "a.gguf/x"].map(isGgufName), [true, true, false, false]);
});
