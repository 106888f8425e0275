/**
 * Files as shards, each in the format that its name ends with: `.jsonl` and `.json` with a document in each line, `.parquet`
 * with one in each row, `.bin` of tokens; all `.txt` and `.md` together are one shard, of which each file is a document.
 * Lines and texts may be compressed, `.gz` or `.zst`.
 * @module
 */
import { DataError } from "./error.ts";
import { openPlain, plainName } from "./inflate.ts";
import { readJsonLines } from "./json_lines.ts";
import { windowed } from "./order.ts";
import { readParquet } from "./parquet.ts";
import {
  attempt,
  isTaken,
  MAX_DOCUMENT_BYTES,
  type ReadOptions,
  refuse,
  type Shard,
  type Take,
  type TextDocument,
  type TokenOptions,
} from "./shard.ts";
import type { ShardFile } from "./source.ts";
import { readTokens } from "./token_file.ts";
import { strictUtf8File } from "./utf8.ts";

/** Names of files that are shards. */
export const SHARD_FILES = /\.(((json|jsonl|txt|md)(\.(gz|zst))?)|parquet|bin)$/i;

/** How files are read. */
export interface FilesOptions extends TokenOptions {
  /** Shuffles the shards, and the documents of each; default: as they lie. */
  readonly shuffle?: { readonly seed: number; readonly window: number };
}

/** The shards of files, in their order.
 * @throws {DataError} when the name of one tells no format. */
export function shardsOf(files: readonly ShardFile[], options: FilesOptions = {}): Shard[] {
  const texts = files.filter(({ name }) => isText(name));
  const shards = files.filter(({ name }) => !isText(name)).map((file) => shardOf(file, options));
  if (texts.length > 0) {
    const name = texts.length === 1 ? texts[0].name : `${texts.length} text files`;
    shards.push({ name, read: (take) => readTexts(texts, take, options) });
  }
  const { shuffle } = options;
  return shuffle ? shards.map((shard, number) => windowed(shard, { ...shuffle, number })) : shards;
}

function isText(name: string): boolean {
  return /\.(txt|md)$/i.test(plainName(name));
}

function shardOf(file: ShardFile, options: FilesOptions): Shard {
  const { name } = file;
  if (/\.parquet$/i.test(name)) return { name, read: (take) => readParquet(file, take, options) };
  if (/\.bin$/i.test(name)) return { name, read: (take) => readTokens(file, take, options) };
  if (/\.jsonl?$/i.test(plainName(name))) return { name, read: (take) => readJsonLines(file, take, options) };
  throw new DataError({
    code: "unknown_dataset",
    what: `Cannot tell the format of ${file.location} by its name`,
    expected: ".jsonl, .json, .txt, .md (each also with .gz or .zst behind it), .parquet or .bin",
    fix: "rename the file, or give the path of another",
  });
}

async function* readTexts(
  files: readonly ShardFile[],
  take: Take,
  { maxBytes = MAX_DOCUMENT_BYTES, onBad = refuse }: ReadOptions,
): AsyncGenerator<TextDocument, void> {
  for (const [index, file] of files.entries()) {
    if (!isTaken(take, index)) continue;
    const bytes = await bytesOf(file, maxBytes).catch((error) => attempt(() => refuse(error), onBad));
    const text = bytes && attempt(() => decode(file, bytes), onBad);
    if (text !== undefined) yield { index, text };
  }
}

async function bytesOf(file: ShardFile, maxBytes: number): Promise<Uint8Array> {
  await using plain = await openPlain(file);
  const pieces: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of plain.chunks) {
    length += chunk.length;
    if (length > maxBytes) throw badText(file, `it has more than ${maxBytes} bytes`, "raise data.max_document_bytes");
    pieces.push(chunk);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

function decode(file: ShardFile, bytes: Uint8Array): string {
  try {
    return strictUtf8File.decode(bytes);
  } catch {
    throw badText(file, "it is not UTF-8", "leave it out, or convert it");
  }
}

function badText({ location }: ShardFile, why: string, fix: string): DataError {
  return new DataError({
    code: "bad_document",
    what: `Cannot read ${location}: ${why}`,
    expected: "plain text in UTF-8",
    fix,
  });
}
