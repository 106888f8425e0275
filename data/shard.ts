/** What a dataset is made of: shards, which yield documents in a fixed order. @module */
import { DataError } from "./error.ts";

/** One document of a shard: its text, or tokens that were made of it before. */
export type Document = TextDocument | TokenDocument;

/** One text of a dataset. */
export interface TextDocument {
  /** Place in its shard, from 0, in the order in which it is read. */
  readonly index: number;
  readonly text: string;
}

/** A document of a file of tokens, with the special tokens that its maker gave it. */
export interface TokenDocument {
  /** Place in its shard, from 0. */
  readonly index: number;
  readonly ids: Int32Array;
}

/** Which documents of a shard: those from index `from` on whose index modulo `every` is `offset`. */
export interface Take {
  readonly from: number;
  readonly every: number;
  readonly offset: number;
}

/** A part of a dataset that is read from its beginning. */
export interface Shard {
  readonly name: string;
  /** Documents at the places of the order that an epoch has. */
  read(take: Take, epoch: number): AsyncGenerator<Document, void>;
}

/** How documents are found in a file, and in what order. */
export interface ReadOptions {
  /** Key of the text in a line or a column; default `text`. */
  readonly field?: string;
  /** Makes the text of a document of what its field has, where that is no text; throws an Error that says what is wrong. Default: it has to
   * be a text. */
  readonly textOf?: (value: unknown) => string;
  /** A longer document is bad, and never held in memory whole; default {@linkcode MAX_DOCUMENT_BYTES}. */
  readonly maxBytes?: number;
  /** Is told of each document, or rest of a shard, that cannot be used; reading goes on behind it, unless it throws. Default: it throws. */
  readonly onBad?: (error: DataError) => void;
  /** Is told what takes long. */
  readonly onNote?: (text: string) => void;
}

/** How files of tokens are read. */
export interface TokenOptions extends ReadOptions {
  /** The token that ends a document; null: there is none. */
  readonly end?: number | null;
  /** Bytes of a token where the file does not say; default 2. */
  readonly tokenBytes?: 2 | 4;
}

/** The largest document, where nothing else is said: far above any text, and below what a string can hold. */
export const MAX_DOCUMENT_BYTES: number = 256 << 20;

/** Is document `index` one of those that are taken? */
export function isTaken({ from, every, offset }: Take, index: number): boolean {
  return index >= from && index % every === offset;
}

/** The text that `textOf` makes of what a field has.
 * @param bad makes the error that says where it is, and what to do. */
export function textMade(
  textOf: NonNullable<ReadOptions["textOf"]>,
  value: unknown,
  bad: (why: string, fix: string) => DataError,
): string {
  try {
    return textOf(value);
  } catch (error) {
    throw bad((error as Error).message, "correct it, or leave it out: data.on_error");
  }
}

/** Refuses what cannot be used. */
export function refuse(error: DataError): never {
  throw error;
}

/** What `make` gives, or undefined where it cannot and `onBad` lets that pass. */
export function attempt<T>(make: () => T, onBad: (error: DataError) => void): T | undefined {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
    onBad(error);
  }
}
