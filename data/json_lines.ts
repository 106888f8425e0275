/**
 * Documents in lines of JSON, `{"text": "..."}`, compressed or not: C4's shards, and any `.jsonl` or `.json`. Lines are
 * read as a stream, so that memory holds one document and one chunk. Empty lines hold no document.
 * @module
 */
import { DataError } from "./error.ts";
import { openPlain } from "./inflate.ts";
import {
  attempt,
  isTaken,
  MAX_DOCUMENT_BYTES,
  type ReadOptions,
  refuse,
  type Take,
  type TextDocument,
  textMade,
} from "./shard.ts";
import type { ShardFile } from "./source.ts";
import { strictUtf8 } from "./utf8.ts";

const NEWLINE = 10;
/** Lines before the first that is wanted which may be inflated without a word. */
const MANY = 5000;
/** Files of which that was told. */
const told = new WeakSet<ShardFile>();

/** A line of a file. */
interface Line {
  /** From 0. */
  readonly index: number;
  /** Bytes of text before it. */
  readonly byte: number;
  /** Its bytes; undefined: it has more than are held. */
  readonly bytes: Uint8Array | undefined;
}

/** Reads documents of one file in order. Those that are not taken are inflated and counted, but not parsed.
 * @throws {DataError} naming the shard and the line, when the file or a line is damaged, unless `onBad` lets it pass. */
export async function* readJsonLines(
  file: ShardFile,
  take: Take,
  options: ReadOptions = {},
): AsyncGenerator<TextDocument, void> {
  const { field = "text", maxBytes = MAX_DOCUMENT_BYTES, onBad = refuse } = options;
  let lines = 0;
  try {
    for await (const line of readLines(file, take, options, (passed) => lines = passed)) {
      if (line.bytes !== undefined && isBlank(line.bytes)) continue;
      const text = attempt(() => parse(file, line, { ...options, field, maxBytes }), onBad);
      if (text !== undefined) yield { index: line.index, text };
    }
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
    const { what, ...problem } = error.problem, names = error.code === "bad_document"; // its line
    const isDamage = names || error.code === "damaged_shard";
    const again = isDamage && await file.distrust?.() ? { fix: "begin again: what had come of it is removed" } : {};
    const placed = new DataError(
      { ...problem, ...again, what: names ? what : what.replace(": ", ` after line ${lines}: `) },
      { cause: error.cause },
    );
    if (error.code !== "damaged_shard") throw placed;
    onBad(placed);
    return;
  }
  if (lines === 0) onBad(noDocument(file));
}

/** The lines that are taken; `passed` is told how many have been read. */
async function* readLines(
  file: ShardFile,
  take: Take,
  { maxBytes = MAX_DOCUMENT_BYTES, onNote }: ReadOptions,
  passed: (lines: number) => void,
): AsyncGenerator<Line, void> {
  await using plain = await openPlain(file, take.from);
  if (plain.line === 0 && take.from >= MANY && /\.(gz|zst)$/i.test(file.name) && !told.has(file)) {
    told.add(file);
    onNote?.(
      `reading shard ${file.location} from its beginning to line ${take.from + 1}, as no place in between is known ` +
        `(${/\.gz$/i.test(file.name) ? "it has no index yet" : "zstd has no index"})`,
    );
  }
  let { line: index, byte } = plain;
  /** Pieces of a line that goes on in the next chunk, as long as it is not too long. */
  let pieces: Uint8Array[] = [], length = 0;
  const lineEndingIn = (end: Uint8Array): Line => {
    const bytes = length + end.length > maxBytes ? undefined : pieces.length === 0 ? end : joined([...pieces, end]);
    return { index, byte, bytes };
  };
  for await (const chunk of plain.chunks) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      if (isTaken(take, index)) yield lineEndingIn(chunk.subarray(start, end));
      byte += length + end + 1 - start;
      [start, pieces, length] = [end + 1, [], 0];
      passed(++index);
    }
    if (start === chunk.length) continue;
    length += chunk.length - start;
    if (length > maxBytes) pieces = [];
    else if (isTaken(take, index)) pieces.push(chunk.slice(start));
  }
  if (length === 0) return;
  if (isTaken(take, index)) yield lineEndingIn(new Uint8Array(0));
  passed(index + 1);
}

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

function isBlank(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0x20 || byte === 0x0d || byte === 0x09);
}

function parse(
  file: ShardFile,
  { index, byte, bytes }: Line,
  { field, maxBytes, textOf }: ReadOptions & { readonly field: string },
): string {
  const bad = (why: string, fix = "correct the line, or download the shard again") =>
    new DataError({
      code: "bad_document",
      what: `Cannot read line ${index + 1} (byte ${byte}) of shard ${file.location}: ${why}`,
      expected: `one JSON object per line with its ${textOf ? "messages" : "text"} as ${JSON.stringify(field)}`,
      fix,
    });
  if (bytes === undefined) throw bad(`it has more than ${maxBytes} bytes`, "raise data.max_document_bytes");
  let value: unknown;
  try {
    value = JSON.parse(strictUtf8.decode(bytes));
  } catch (error) {
    throw bad(error instanceof SyntaxError ? error.message : "it is not UTF-8");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw bad("it is no object");
  const found = Object.hasOwn(value, field) ? (value as Record<string, unknown>)[field] : undefined;
  if (textOf && found !== undefined) return textMade(textOf, found, bad);
  if (typeof found === "string") return found;
  throw bad(
    `it has ${found === undefined ? `no ${JSON.stringify(field)}` : `a ${JSON.stringify(field)} that is no string`} ` +
      `(keys: ${Object.keys(value).join(", ")})`,
    "set data.text_field (option field) to the key of the text, or correct the line",
  );
}

function noDocument({ location }: ShardFile): DataError {
  return new DataError({
    code: "empty_dataset",
    what: `Shard ${location} holds no document`,
    expected: "at least one line",
    fix: "remove the shard, or download it again",
  });
}
