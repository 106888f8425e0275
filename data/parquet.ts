/**
 * Documents in a column of text of a Parquet file. A group of rows is read at once; those before a place are passed over
 * unread, so that going on in the middle costs no more than one group.
 * @module
 */
import { type AsyncBuffer, type FileMetaData, parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { DataError } from "./error.ts";
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

/** The most bytes of a column in a group of rows, which memory holds. */
const MOST_GROUP_BYTES = 1 << 30;

/** Reads documents of one file in order.
 * @throws {DataError} naming the file and the row, when it is damaged or a row has no text, unless `onBad` lets it pass. */
export async function* readParquet(
  file: ShardFile,
  take: Take,
  options: ReadOptions = {},
): AsyncGenerator<TextDocument, void> {
  const { field = "text", maxBytes = MAX_DOCUMENT_BYTES, onBad = refuse } = options;
  let row = 0;
  try {
    const buffer = await bufferOf(file), metadata = await parquetMetadataAsync(buffer);
    if (!options.textOf) checkColumn(file, metadata, field);
    if (metadata.num_rows === 0n) onBad(noDocument(file));
    for (const group of metadata.row_groups) {
      const rows = Number(group.num_rows), [rowStart, rowEnd] = [row, row + rows];
      row = rowEnd;
      if (rowEnd <= take.from) continue;
      row = rowStart;
      checkSize(file, group, field);
      const read = { file: buffer, metadata, columns: [field], rowStart, rowEnd, compressors, parsers };
      for (const value of await parquetReadObjects(read)) {
        if (isTaken(take, row)) {
          const index = row,
            text = attempt(() => textOf(file, index, value[field], { ...options, field, maxBytes }), onBad);
          if (text !== undefined) yield { index, text };
        }
        row++;
      }
    }
  } catch (error) {
    if (error instanceof DataError && error.code !== "damaged_shard") throw error;
    onBad(error instanceof DataError ? error : damaged(file, row, error as Error));
  }
}

/** Texts stay bytes until they are known to be UTF-8. */
const parsers = { stringFromBytes: (bytes: Uint8Array | undefined) => bytes };

async function bufferOf(file: ShardFile): Promise<AsyncBuffer> {
  const byteLength = await file.size();
  return { byteLength, slice: async (start, end = byteLength) => (await file.slice(start, end)).buffer };
}

function checkColumn(file: ShardFile, { schema }: FileMetaData, field: string): void {
  const columns = columnsOf(schema), found = columns.find(({ name }) => name === field);
  if (found?.type === "BYTE_ARRAY" && found.repetition_type !== "REPEATED") return;
  throw new DataError({
    code: "bad_document",
    what: `Shard ${file.location} has no column ${JSON.stringify(field)} of text`,
    expected: `one of its columns: ${columns.map(({ name }) => name).join(", ")}`,
    fix: "set data.text_field (option field) to the column of the text",
  });
}

/** The columns of a table: what is below its root alone. */
function columnsOf(schema: FileMetaData["schema"]): FileMetaData["schema"] {
  const columns = [];
  for (let n = 1; n < schema.length; n = behind(schema, n)) columns.push(schema[n]);
  return columns;
}

function behind(schema: FileMetaData["schema"], n: number): number {
  let next = n + 1;
  for (let child = 0; child < (schema[n].num_children ?? 0); child++) next = behind(schema, next);
  return next;
}

function checkSize({ location }: ShardFile, group: FileMetaData["row_groups"][number], field: string): void {
  const column = group.columns.find(({ meta_data }) => meta_data?.path_in_schema.join(".") === field);
  const bytes = Number(column?.meta_data?.total_uncompressed_size ?? 0);
  if (bytes <= MOST_GROUP_BYTES) return;
  throw new DataError({
    code: "damaged_shard",
    what: `Shard ${location} has a group of rows with ${bytes} bytes of text`,
    expected: `groups of at most ${MOST_GROUP_BYTES} bytes, as memory holds one`,
    fix: "write the file with smaller groups of rows",
  });
}

function textOf(
  { location }: ShardFile,
  row: number,
  value: unknown,
  { field, maxBytes, textOf: make }: ReadOptions & { field: string; maxBytes: number },
): string {
  const bad = (why: string, fix: string) =>
    new DataError({
      code: "bad_document",
      what: `Cannot read row ${row + 1} of shard ${location}: ${why}`,
      expected: `${make ? "messages" : "a text"} in column ${JSON.stringify(field)}`,
      fix,
    });
  if (!make && !(value instanceof Uint8Array)) {
    throw bad("it has none", "correct the row, or leave it out: data.on_error");
  }
  if (value instanceof Uint8Array && value.length > maxBytes) {
    throw bad(`it has more than ${maxBytes} bytes`, "raise data.max_document_bytes");
  }
  let texts: unknown;
  try {
    texts = withTexts(value);
  } catch {
    throw bad("it is not UTF-8", "correct the row");
  }
  return make ? textMade(make, texts, bad) : texts as string;
}

function damaged({ location }: ShardFile, row: number, cause: Error): DataError {
  return new DataError({
    code: "damaged_shard",
    what: `Shard ${location} is damaged from row ${row + 1} on: ${cause.message}`,
    expected: "a complete Parquet file",
    fix: "download the shard again",
  }, { cause });
}

function noDocument({ location }: ShardFile): DataError {
  return new DataError({
    code: "empty_dataset",
    what: `Shard ${location} holds no document`,
    expected: "at least one row",
    fix: "remove the shard, or download it again",
  });
}

/** The same with texts in place of their bytes. */
function withTexts(value: unknown): unknown {
  if (value instanceof Uint8Array) return strictUtf8.decode(value);
  if (Array.isArray(value)) return value.map(withTexts);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, withTexts(part)]));
}
