/**
 * A lane: one stream of tokens over a part of a dataset's documents, with a cursor from which the very same stream goes on.
 * Each text becomes BOS, its tokens, EOS; documents follow one another without padding.
 * @module
 */
import type { Dataset } from "./dataset.ts";
import { DataError } from "./error.ts";
import { bestFit } from "./packing.ts";
import { type Part, partsOf } from "./share.ts";
import type { Document } from "./shard.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** The place of the next token: before it, this lane has taken everything. All count from 0. */
export interface Cursor {
  /** Passes over the lane's documents that are complete. */
  readonly epoch: number;
  /** Place of the shard in the dataset. */
  readonly shard: number;
  /** Place of the document in the order that the shard has in this epoch. */
  readonly document: number;
  /** Place of the token in the document, whose BOS is token 0; where rows hold whole documents, the row among those that the documents from
   * there on are packed into together. */
  readonly token: number;
}

/** How a lane reads. */
export interface LaneOptions {
  readonly lane: number;
  readonly lanes: number;
  /** Tokens that are taken at once. */
  readonly window: number;
  /** Whether to begin again after the last document. */
  readonly infinite: boolean;
  /** Where to begin. */
  readonly from: Cursor;
  /** Are documents put into rows whole? */
  readonly bestFit?: boolean;
  /** Is told of each document before it is read, by its place. */
  readonly onRead?: (shard: number, document: number) => void;
}

/** What a lane asks of a tokenizer. */
export type Encoder = Pick<Tokenizer, "encode" | "vocabSize">;

/** Rows that documents are packed into together, about: with more of them less is padding, and a run that goes on reads more again. */
const GROUP_ROWS = 64;

/** A document's tokens. */
interface Piece {
  readonly epoch: number;
  readonly shard: number;
  readonly document: number;
  readonly ids: Int32Array;
}

/** Where lane `lane` of `lanes` begins. */
export function beginning(dataset: Dataset, lane: number, lanes: number): Cursor {
  return { epoch: 0, shard: partsOf(dataset, lane, lanes, 0)[0].shard, document: 0, token: 0 };
}

/** A stream of tokens. */
export class Lane {
  readonly #dataset: Dataset;
  readonly #tokenizer: Encoder;
  readonly #options: LaneOptions;
  /** What it reads of its first shard: of the only one, where the number of documents is known. */
  readonly #part: Part;
  readonly #documents: AsyncGenerator<Piece, void>;
  /** Documents of which not all tokens are taken. */
  #pieces: Piece[] = [];
  /** Tokens of all pieces that are not yet taken. */
  #available = 0;
  /** The next token to take, in the first piece where there is one. */
  #cursor: Cursor;
  /** Where documents are whole: the rows of `pieces`. */
  #rows: Int32Array[] = [];
  /** A document that is not among them any more. */
  #next: Piece | undefined;

  /** Nothing is opened before the first `take`. */
  constructor(dataset: Dataset, tokenizer: Encoder, options: LaneOptions) {
    this.#dataset = dataset;
    this.#tokenizer = tokenizer;
    this.#options = options;
    this.#part = partsOf(dataset, options.lane, options.lanes, 0)[0];
    this.#cursor = options.from;
    this.#documents = this.#read();
  }

  get cursor(): Cursor {
    return this.#cursor;
  }

  /** Sees to it that `epoch` is known: how much of a document is read needs all of it. */
  async begin(): Promise<void> {
    if (this.#options.bestFit) return;
    if (this.#count !== undefined && this.#cursor.token > 0 && this.#pieces.length === 0) await this.readAhead(1);
  }

  /** Passes over the documents: complete ones, and where their number is known also the part of the next that is read. */
  get epoch(): number {
    const { epoch, document, token } = this.#cursor, { every, offset } = this.#part, count = this.#count;
    if (count === undefined) return epoch;
    const begun = token === 0 || count === undefined
      ? 0
      : this.#options.bestFit
      ? this.#pieces.length * token / this.#rows.length
      : token / this.#pieces[0].ids.length;
    return epoch + (Math.max(0, Math.ceil((document - offset) / every)) + begun) / count;
  }

  /** Number of its documents, where it is known. */
  get #count(): number | undefined {
    const { documents } = this.#dataset, { every, offset } = this.#part;
    return documents === undefined ? undefined : Math.ceil((documents - offset) / every);
  }

  /** Reads what the next so many tokens take, but takes none; false where a lane that is not infinite has fewer.
   * @throws {DataError} when the data cannot be read, or is too little. */
  async readAhead(tokens: number): Promise<boolean> {
    if (this.#options.bestFit) return await this.#readGroup();
    while (this.#available < tokens) {
      const next = await this.#documents.next();
      if (next.done) return false;
      this.#add(next.value);
    }
    return true;
  }

  /** Takes the next tokens, as many as `window` has; false at the end of a lane that is not infinite.
   * @throws {DataError} when the data cannot be read, or is too little. */
  async take(window: Int32Array): Promise<boolean> {
    if (!await this.readAhead(window.length)) return false;
    if (this.#options.bestFit) return this.#takeRow(window);
    for (let filled = 0; filled < window.length;) {
      const { ids, epoch, shard, document } = this.#pieces[0];
      const { token } = this.#cursor;
      const count = Math.min(ids.length - token, window.length - filled);
      window.set(ids.subarray(token, token + count), filled);
      filled += count;
      if (token + count < ids.length) {
        this.#cursor = { epoch, shard, document, token: token + count };
      } else {
        this.#pieces.shift();
        this.#cursor = this.#pieces.length > 0
          ? { epoch: this.#pieces[0].epoch, shard: this.#pieces[0].shard, document: this.#pieces[0].document, token: 0 }
          : this.#behind(epoch, shard, document);
      }
    }
    this.#available -= window.length;
    return true;
  }

  /** Packs the next documents, until they fill some rows or the pass ends, unless rows are left. */
  async #readGroup(): Promise<boolean> {
    if (this.#rows.length > this.#cursor.token) return true;
    const { window } = this.#options, pieces: Piece[] = [];
    for (let tokens = 0; tokens < GROUP_ROWS * window;) {
      const next = this.#next ?? (await this.#documents.next()).value;
      this.#next = next ?? undefined;
      if (!next || pieces.length > 0 && next.epoch !== pieces[0].epoch) break;
      this.#next = undefined;
      pieces.push(next);
      tokens += next.ids.length;
    }
    if (pieces.length === 0) return false;
    const [{ epoch, shard, document }] = pieces, { token } = this.#cursor;
    [this.#pieces, this.#rows] = [pieces, bestFit(pieces.map(({ ids }) => ids), window)];
    if (token >= this.#rows.length) throw this.#changed();
    this.#cursor = { epoch, shard, document, token };
    return true;
  }

  #takeRow(window: Int32Array): boolean {
    const { token } = this.#cursor, last = this.#pieces.at(-1)!;
    window.set(this.#rows[token]);
    if (token + 1 < this.#rows.length) this.#cursor = { ...this.#cursor, token: token + 1 };
    else {
      [this.#pieces, this.#rows] = [[], []];
      this.#cursor = this.#behind(last.epoch, last.shard, last.document);
    }
    return true;
  }

  /** Closes what is open. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#documents.return();
  }

  /** The place behind a document: the next epoch's first where that is known to be the last. */
  #behind(epoch: number, shard: number, document: number): Cursor {
    const { documents = Infinity } = this.#dataset, { every } = this.#part;
    return this.#options.infinite && document + every >= documents
      ? { epoch: epoch + 1, shard, document: 0, token: 0 }
      : { epoch, shard, document: document + 1, token: 0 };
  }

  #add(piece: Piece): void {
    const { shard, document, ids } = piece;
    if (this.#pieces.length === 0) {
      const { token } = this.#cursor;
      const same = shard === this.#cursor.shard && document === this.#cursor.document;
      if (token > 0 && !(same && token < ids.length)) throw this.#changed();
      this.#available -= token;
    }
    this.#pieces.push(piece);
    this.#available += ids.length;
  }

  /** All documents from the first cursor on, without end where the lane is infinite. */
  async *#read(): AsyncGenerator<Piece, void> {
    const { lane, lanes, from, infinite, window, onRead, bestFit } = this.#options;
    let next: { readonly shard: number; readonly document: number } | undefined = from;
    for (let epoch = from.epoch;; epoch++) {
      const parts = partsOf(this.#dataset, lane, lanes, epoch);
      const first = next ? parts.findIndex(({ shard }) => shard === next!.shard) : 0;
      const complete = first === 0 && !next?.document;
      let [documents, tokens] = [0, 0];
      for (const { shard, every, offset } of parts.slice(first)) {
        const start = next?.document ?? 0;
        next = undefined;
        onRead?.(shard, start);
        for await (const document of this.#dataset.shards[shard].read({ from: start, every, offset }, epoch)) {
          const { index } = document, ids = this.#idsOf(document, shard);
          documents++;
          tokens += ids.length;
          if (ids.length > 0) yield { epoch, shard, document: index, ids };
          onRead?.(shard, index + every);
        }
      }
      if (complete && documents === 0) throw this.#noDocument();
      if (complete && tokens < (bestFit ? 2 : window)) throw this.#tooShort(documents, tokens);
      if (!infinite) return;
    }
  }

  #idsOf(document: Document, shard: number): Int32Array {
    if ("text" in document) return this.#tokenizer.encode(document.text, { bos: true, eos: true });
    const { vocabSize } = this.#tokenizer, wrong = document.ids.find((id) => id >= vocabSize);
    if (wrong === undefined) return document.ids;
    throw new DataError({
      code: "bad_token",
      what: `Document ${document.index} of ${this.#dataset.shards[shard].name} has token ${wrong}`,
      expected: `ids from 0 to ${vocabSize - 1}`,
      fix: "read it with the tokenizer that its tokens were made with (model.hf_assets_path)",
    });
  }

  #noDocument(): DataError {
    const { lane, lanes } = this.#options, { every, offset } = this.#part;
    return new DataError({
      code: "too_many_lanes",
      what: `Lane ${lane} of ${lanes} finds no document in ${this.#dataset.description}: ` +
        `it takes every ${every}th one from number ${offset} on`,
      expected: "at least one document for each lane",
      fix: "lower data.lanes",
    });
  }

  #tooShort(documents: number, tokens: number): DataError {
    const { lane, lanes, window } = this.#options;
    return new DataError({
      code: "too_short",
      what:
        `Lane ${lane} of ${lanes} has ${tokens} tokens in its ${documents} documents of ${this.#dataset.description}`,
      expected: `at least ${window} tokens, one more than a sequence has`,
      fix: `shorten the sequences (seq_len)${lanes > 1 ? ", lower data.lanes" : ""}, or add text`,
    });
  }

  #changed(): DataError {
    const { shard, document, token } = this.#options.from;
    return new DataError({
      code: "bad_state",
      what: `Cannot go on at token ${token} of document ${document} in ${this.#dataset.shards[shard].name}: ` +
        "the document is shorter now, or gone",
      expected: "the dataset and the tokenizer that the state was saved with",
      fix: "restore them, or start without the loader's state",
    });
  }
}
