/**
 * The documents of one's own text files: a file is one, but of a `.jsonl` each line. They are found once, of each where it
 * lies, so that they can be read in any order, and a share can be held out.
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import { DataError } from "./error.ts";
import { hashOf } from "./identity.ts";
import { shuffled } from "./order.ts";
import {
  attempt,
  MAX_DOCUMENT_BYTES,
  type ReadOptions,
  refuse,
  type Take,
  type TextDocument,
  textMade,
} from "./shard.ts";
import { CHUNK_BYTES, isMissing, reading } from "./source.ts";
import { nothing } from "./texts.ts";
import { strictUtf8File } from "./utf8.ts";

/** Which documents: all, those that are held out for validation, or the others. */
export type Part = "all" | "training" | "held-out";

/** What the documents of files are. */
export interface TextDocumentsOptions extends ReadOptions {
  /** Default: all. */
  readonly part?: Part;
  /** Seed of the order, another one in each epoch; default: as they lie. */
  readonly shuffle?: number;
}

/** Share of the documents that is held out. */
export const HELD_OUT = 0.05;

/** Of what is held out: the same documents in every run, whatever its seed. */
const HELD_OUT_SEED = 5;

const NEWLINE = 10;

/** Where a document lies. */
interface Place {
  readonly file: string;
  readonly start: number;
  readonly end: number;
  /** Of a `.jsonl`, from 1. */
  readonly line?: number;
}

/** Documents that can be read one by one. */
export class TextDocuments {
  /** Number of all documents, before a share was held out. */
  readonly all: number;
  /** Tells these documents in this order from others. */
  readonly identity: string;
  readonly #places: readonly Place[];
  readonly #options: TextDocumentsOptions;

  private constructor(places: readonly Place[], all: number, options: TextDocumentsOptions, content: string) {
    const { field = "text", part = "all", shuffle } = options;
    this.#places = places;
    this.#options = options;
    this.all = all;
    this.identity = hashOf([field, part, shuffle ?? null, places.map(({ start, end }) => end - start), content]);
  }

  /** Finds the documents of files.
   * @throws {DataError} when a file cannot be read, or there is no document for a part. */
  static async open(files: readonly string[], options: TextDocumentsOptions = {}): Promise<TextDocuments> {
    const places: Place[] = [], hash = createHash("sha256");
    for (const file of files) {
      if (isLines(file)) { for await (const place of lines(file, hash)) places.push(place); }
      else places.push({ file, start: 0, end: await hashed(file, hash) });
    }
    if (places.length === 0) throw noDocument(files);
    const { part = "all" } = options, own = part === "all" ? places : await partOf(places, part);
    return new TextDocuments(own, places.length, options, hash.digest("hex"));
  }

  /** Number of documents. */
  get count(): number {
    return this.#places.length;
  }

  /** The largest number of lanes, up to `most`, of which each has that many bytes; at least 1. */
  lanes(most: number, bytes: number): number {
    const sizes = this.#places.map(({ start, end }) => end - start);
    for (let lanes = Math.min(most, sizes.length); lanes > 1; lanes--) {
      const sums = new Float64Array(lanes);
      sizes.forEach((size, n) => sums[n % lanes] += size);
      if (sums.every((sum) => sum >= bytes)) return lanes;
    }
    return 1;
  }

  /** Reads those documents at the places of an epoch's order. A lane has the same documents in every epoch, so that it never
   * has fewer tokens than before. */
  async *read({ from, every, offset }: Take, epoch: number): AsyncGenerator<TextDocument, void> {
    const own: number[] = [], { shuffle, onBad = refuse } = this.#options;
    for (let n = offset; n < this.count; n += every) own.push(n);
    const order = shuffle === undefined ? own : shuffled(own, shuffle, epoch);
    for (let n = Math.max(0, Math.ceil((from - offset) / every)); n < order.length; n++) {
      const place = this.#places[order[n]];
      const text = await readText(place, this.#options).catch((error) => attempt(() => refuse(error), onBad));
      if (text !== undefined) yield { index: own[n], text };
    }
  }
}

const isLines = (file: string): boolean => /\.jsonl$/i.test(file);

async function partOf(places: readonly Place[], part: "training" | "held-out"): Promise<Place[]> {
  if (places.length === 1) {
    const [rest, end] = await cut(places[0]);
    return [part === "training" ? rest : end];
  }
  const count = Math.max(1, Math.round(HELD_OUT * places.length));
  const heldOut = new Set(shuffled([...places.keys()], HELD_OUT_SEED).slice(0, count));
  return places.filter((_, n) => heldOut.has(n) === (part === "held-out"));
}

/** An only document in two, the share that is held out behind the rest: between lines, or words, or else characters. */
async function cut(place: Place): Promise<[Place, Place]> {
  const { file, start, end } = place;
  const bytes = place.line === undefined ? await bytesOf(place) : new Uint8Array(0);
  const most = Math.floor((1 - HELD_OUT) * bytes.length);
  const behind = (byte: number) => bytes.lastIndexOf(byte, most - 1) + 1;
  let at = behind(NEWLINE) || behind(0x20) || most;
  while (at > 0 && (bytes[at] & 0xc0) === 0x80) at--; // a byte within a character
  if (at <= 0) {
    throw new DataError({
      code: "too_short",
      what: `Cannot hold out a part of ${file} for validation: it is one ${place.line ? "line" : "text"} alone`,
      expected: "two documents or more, or a text that can be cut",
      fix: "add text, name another for validation (validation.dataset_path), or leave validation.enable out",
    });
  }
  return [{ file, start, end: start + at }, { file, start: start + at, end }];
}

/** Bytes of a file, all of which go into a hash. */
async function hashed(file: string, hash: Hash): Promise<number> {
  let bytes = 0;
  for await (const chunk of chunksOf(file, hash)) bytes += chunk.length;
  return bytes;
}

/** A file in chunks, each valid until the next. */
async function* chunksOf(file: string, hash: Hash): AsyncGenerator<Uint8Array, void> {
  using open = await found(file, () => Deno.open(file));
  const chunk = new Uint8Array(CHUNK_BYTES);
  for (let count; (count = await reading(file, () => open.read(chunk))) !== null;) {
    const bytes = chunk.subarray(0, count);
    hash.update(bytes);
    yield bytes;
  }
}

/** The lines of a file that are not empty. */
async function* lines(file: string, hash: Hash): AsyncGenerator<Place, void> {
  let [at, start, line, isEmpty] = [0, 0, 1, true];
  for await (const chunk of chunksOf(file, hash)) {
    for (let n = 0; n < chunk.length;) {
      const newline = chunk.indexOf(NEWLINE, n), end = newline < 0 ? chunk.length : newline;
      for (; n < end && isEmpty; n++) isEmpty = chunk[n] === 0x20 || chunk[n] === 0x0d || chunk[n] === 0x09;
      n = end;
      if (newline < 0) break;
      if (!isEmpty) yield { file, start, end: at + newline, line };
      [start, line, isEmpty] = [at + newline + 1, line + 1, true];
      n++;
    }
    at += chunk.length;
  }
  if (!isEmpty) yield { file, start, end: at, line };
}

async function bytesOf({ file, start, end }: Place): Promise<Uint8Array> {
  using open = await found(file, () => Deno.open(file));
  const bytes = new Uint8Array(end - start);
  let filled = 0;
  await reading(file, async () => {
    await open.seek(start, Deno.SeekMode.Start);
    for (let count; filled < bytes.length && (count = await open.read(bytes.subarray(filled))) !== null;) {
      filled += count;
    }
  });
  return bytes.subarray(0, filled);
}

/** The text of a document. */
async function readText(place: Place, options: ReadOptions): Promise<string> {
  const { file, line, start, end } = place, { field = "text", maxBytes = MAX_DOCUMENT_BYTES, textOf } = options;
  if (end - start > maxBytes) {
    const why = `it has more than ${maxBytes} bytes`;
    throw badDocument(file, line ?? 1, why, "a shorter document", "raise data.max_document_bytes");
  }
  const bytes = await bytesOf(place);
  let text: string;
  try {
    text = strictUtf8File.decode(bytes);
  } catch {
    throw badDocument(
      file,
      line ?? firstBadLine(bytes),
      "it is not UTF-8",
      "plain text",
      "leave it out, or convert it",
    );
  }
  if (line === undefined) return text;
  const bad = (why: string, fix: string) =>
    badDocument(
      file,
      line,
      why,
      `one JSON object per line with its ${textOf ? "messages" : "text"} as ${JSON.stringify(field)}`,
      fix,
    );
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw bad((error as Error).message, "correct the line");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw bad("it is no object", "correct the line");
  }
  const found = Object.hasOwn(value, field) ? (value as Record<string, unknown>)[field] : undefined;
  if (textOf && found !== undefined) return textMade(textOf, found, bad);
  if (typeof found === "string") return found;
  throw bad(
    `it has ${found === undefined ? `no ${JSON.stringify(field)}` : `a ${JSON.stringify(field)} that is no string`} ` +
      `(keys: ${Object.keys(value).join(", ")})`,
    "set data.text_field (option field) to the key of the text, or correct the line",
  );
}

/** The first line that is not UTF-8, from 1. */
function firstBadLine(bytes: Uint8Array): number {
  for (let line = 1, start = 0;; line++) {
    const end = bytes.indexOf(NEWLINE, start);
    try {
      strictUtf8File.decode(bytes.subarray(start, end < 0 ? bytes.length : end));
    } catch {
      return line;
    }
    if (end < 0) return line;
    start = end + 1;
  }
}

/** Does `read` of a file that was found before. */
async function found<T>(file: string, read: () => Promise<T>): Promise<T> {
  try {
    return await reading(file, read);
  } catch (error) {
    throw isMissing(error) ? nothing(file) : error;
  }
}

function badDocument(file: string, line: number, why: string, expected: string, fix: string): DataError {
  return new DataError({ code: "bad_document", what: `Cannot read line ${line} of ${file}: ${why}`, expected, fix });
}

function noDocument(files: readonly string[]): DataError {
  const what = files.length === 1 ? `${files[0]} has` : `${files[0]} and ${files.length - 1} other files have`;
  return new DataError({
    code: "empty_dataset",
    what: `${what} no line but empty ones`,
    expected: 'one JSON object per line, such as {"text": "..."}',
    fix: "name other files",
  });
}
