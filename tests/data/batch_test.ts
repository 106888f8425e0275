import { assertEquals } from "@std/assert";
import { batchBytes, IGNORE_INDEX, makeBatch } from "../../data/batch.ts";

Deno.test("a batch holds no text at first, and lies in the memory that it is given with what is there", () => {
  const memory = new ArrayBuffer(batchBytes(2, 3) + 64), batch = makeBatch(2, 3, memory, 64);
  assertEquals([...batch.positions], [0, 1, 2, 0, 1, 2]);
  assertEquals([...makeBatch(2, 3).targets], Array(6).fill(IGNORE_INDEX));
  batch.targets.set([1, 2, 3]);
  assertEquals([...makeBatch(2, 3, memory, 64).targets], [1, 2, 3, 0, 0, 0]);
  assertEquals(batch.tokens.byteOffset, 64);
  assertEquals(batch.documents.byteOffset + batch.documents.byteLength, memory.byteLength);
});
