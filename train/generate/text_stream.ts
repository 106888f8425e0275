/** From tokens to text, piece by piece: a piece never ends within a character, and never has a part of what may become a stop string.
 * @module */
import type { Tokenizer } from "../../data/tokenizer.ts";
import { GenerateError } from "./error.ts";

/** What a stream begins with. */
export interface TextStreamOptions {
  /** Texts that end the stream; they are no part of it. */
  readonly stop?: readonly string[];
  /** The token before the first one: what a token is as text may depend on it, as for the space before a word. */
  readonly before?: number;
}

/** The text of one sequence. */
export class TextStream {
  readonly #tokenizer: Pick<Tokenizer, "decodeBytes">;
  readonly #stop: readonly string[];
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #before: number | undefined;
  /** Text that is not given away yet, as a stop string may begin in it. */
  #held = "";
  #stopped = false;

  /** @throws {GenerateError} when a stop string is empty. */
  constructor(tokenizer: Pick<Tokenizer, "decodeBytes">, { stop = [], before }: TextStreamOptions = {}) {
    if (stop.includes("")) {
      throw new GenerateError("A stop string is empty", "texts of one character or more", "leave it out, or write one");
    }
    this.#tokenizer = tokenizer;
    this.#stop = stop;
    this.#before = before;
  }

  /** Has a stop string come? */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Takes a token; returns the text that is certain now. */
  push(token: number): string {
    const bytes = this.#bytesOf(token);
    this.#before = token;
    return this.#take(this.#decoder.decode(bytes, { stream: true }));
  }

  /** The text that is left when no token follows. */
  end(): string {
    const text = this.#take(this.#decoder.decode()), rest = this.#stopped ? "" : this.#held;
    this.#held = "";
    return text + rest;
  }

  /** What a token adds to the text behind the token before it. */
  #bytesOf(token: number): Uint8Array {
    const decode = (...tokens: number[]) => this.#tokenizer.decodeBytes(tokens, { special: false });
    if (this.#before === undefined) return decode(token);
    return decode(this.#before, token).subarray(decode(this.#before).length);
  }

  #take(text: string): string {
    if (this.#stopped) return "";
    this.#held += text;
    const found = this.#stop.map((stop) => this.#held.indexOf(stop)).filter((at) => at >= 0);
    this.#stopped = found.length > 0;
    const end = this.#stopped ? Math.min(...found) : this.#held.length - this.#begun(),
      given = this.#held.slice(0, end);
    this.#held = this.#held.slice(end);
    return given;
  }

  /** Length of the longest end of the text with which a stop string begins. */
  #begun(): number {
    const longest = Math.max(0, ...this.#stop.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, this.#held.length); length > 0; length--) {
      const end = this.#held.slice(-length);
      if (this.#stop.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}
