/**
 * C4 as it lies on disk: gzip shards of JSON lines `{"text", "timestamp", "url"}`, read as a stream. A line that cannot
 * be used is an error and never skipped: a corpus with holes would make two runs differ without a word.
 * @module
 */
import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";
import { DataError } from "./error.ts";
import { CHUNK_BYTES, openStream, show, unreadable } from "./source.ts";

/** One text of a dataset. */
export interface Document {
  /** Place in its shard, from 0, in the order in which it is read. */
  readonly index: number;
  readonly text: string;
}

/** Which documents of a shard: those from index `from` on whose index modulo `every` is `offset`. */
export interface Take {
  readonly from: number;
  readonly every: number;
  readonly offset: number;
}

/** Part of C4 that a shard belongs to. */
export type Split = "train" | "validation";

const NEWLINE = 10;
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** C4's name of shard `n` of `count`. */
export function shardName(split: Split, n: number, count: number): string {
  const digits = (x: number) => String(x).padStart(5, "0");
  return `c4-${split}.${digits(n)}-of-${digits(count)}.json.gz`;
}

/** Reads documents of one shard in order. Those that are not taken are inflated and counted, but not parsed.
 * @throws {DataError} naming the shard and the line, when the gzip or a line is damaged. */
export async function* readShard(url: URL, take: Take): AsyncGenerator<Document, void> {
  const source = await openStream(url);
  if (source === undefined) throw missing(url);
  const inflated = createGunzip({ chunkSize: CHUNK_BYTES });
  const closed = new Promise<void>((done) => pipeline(source, inflated, () => done()));
  let index = 0;
  let rest: Uint8Array = new Uint8Array(0);
  const wanted = () => index >= take.from && index % take.every === take.offset;
  try {
    for await (const chunk of inflated) {
      const bytes = rest.length === 0 ? chunk as Uint8Array : concat(rest, chunk);
      let start = 0;
      for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, start)) {
        if (wanted()) yield { index, text: parseLine(bytes.subarray(start, end), url, index) };
        start = end + 1;
        index++;
      }
      rest = bytes.subarray(start);
    }
    if (rest.length > 0) {
      if (wanted()) yield { index, text: parseLine(rest, url, index) };
      index++;
    }
  } catch (error) {
    if (error instanceof DataError) throw error;
    if (!url.pathname.endsWith(".gz") && /incorrect header/.test((error as Error).message)) {
      throw noShard(url, error as Error);
    }
    const isSystems = /^E[A-Z]+$/.test((error as NodeJS.ErrnoException).code ?? ""); // zlib's begin with Z_
    throw isSystems ? unreadable(show(url), error as Error) : damaged(url, index, error as Error);
  } finally {
    await closed; // leaving the loop destroyed both streams
  }
  if (index === 0) throw noDocument(url);
}

function concat(a: Uint8Array, b: Uint8Array): Uint8Array {
  const joined = new Uint8Array(a.length + b.length);
  joined.set(a);
  joined.set(b, a.length);
  return joined;
}

function parseLine(line: Uint8Array, url: URL, index: number): string {
  const bad = (why: string) =>
    new DataError({
      code: "bad_document",
      what: `Cannot read line ${index + 1} of shard ${show(url)}: ${why}`,
      expected: 'one JSON object per line with its text as "text", as in C4',
      fix: "correct the line, or download the shard again",
    });
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(line));
  } catch (error) {
    throw bad(error instanceof SyntaxError ? error.message : "it is not UTF-8");
  }
  const text = (value as { text?: unknown } | null)?.text;
  if (typeof text === "string") return text;
  const found = typeof value === "object" && value !== null && !Array.isArray(value)
    ? `it has ${text === undefined ? 'no "text"' : 'a "text" that is no string'} (keys: ${
      Object.keys(value).join(", ")
    })`
    : "it is no object";
  throw bad(found);
}

function missing(url: URL): DataError {
  return new DataError({
    code: "no_such_file",
    what: `Cannot open shard ${show(url)}: there is no such file`,
    expected: "a .json.gz file of C4",
    fix: "correct the dataset's path",
  });
}

function noDocument(url: URL): DataError {
  return new DataError({
    code: "empty_dataset",
    what: `Shard ${show(url)} holds no document`,
    expected: "at least one line",
    fix: "remove the shard, or download it again",
  });
}

function noShard(url: URL, cause: Error): DataError {
  const path = show(url);
  return new DataError({
    code: "not_a_shard",
    what: `Cannot read ${path} as a shard: it is no gzip file`,
    expected: 'shards as C4 has them: JSON lines such as {"text": "..."}, compressed, in a file .json.gz',
    fix: /\.json$/.test(path)
      ? `compress its lines: gzip ${path}`
      : `read it as dataset "text": --training.dataset text --training.dataset_path ${path}`,
  }, { cause });
}

function damaged(url: URL, index: number, error: Error): DataError {
  const truncated = /unexpected end of file/.test(error.message);
  return new DataError({
    code: "damaged_shard",
    what: `Shard ${show(url)} is ${truncated ? "cut off" : "damaged"} after line ${index}: ${error.message}`,
    expected: "a complete gzip file",
    fix: "download the shard again",
  }, { cause: error });
}
