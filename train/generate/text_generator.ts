/** Text from a model: prompts are read, tokens drawn one after another for several samples at once, and their text given away as soon as
 * it is certain.
 * @module */
import type { Decoder } from "./decoder.ts";
import { GenerateError } from "./error.ts";
import { sample, type Sampling } from "./sampler.ts";
import type { TextSource } from "./source.ts";
import { TextStream } from "./text_stream.ts";

/** Why a text ended: the model ended it, a stop string came, there were as many tokens as asked for, the model's length was reached, or it
 * was stopped from outside. */
export type TextEnd = "end" | "stop" | "tokens" | "context" | "abort";

/** A piece of a text. */
export interface TextPiece {
  /** Number of the sample, from 0. */
  readonly sample: number;
  /** Whole characters; empty only in a last piece. */
  readonly text: string;
  /** Of a sample's last piece: why nothing follows. */
  readonly end?: TextEnd;
}

/** What a text took. */
export interface GenerationStatistics {
  /** Tokens of the prompt. */
  readonly promptTokens: number;
  /** The ones of these that were read; others were known from before. */
  readonly readTokens: number;
  /** Tokens of all samples. */
  readonly newTokens: number;
  /** Milliseconds from the call until the first token was there. */
  readonly firstTokenMs: number;
  /** Milliseconds from then on. */
  readonly decodeMs: number;
}

/** How a text goes on. */
export interface ContinueOptions {
  readonly sampling: Sampling;
  readonly maxNewTokens: number;
  readonly stop: readonly string[];
  /** Ends the text behind the token under way. */
  readonly signal?: AbortSignal;
}

/** A text under way. */
interface Sample {
  readonly number: number;
  readonly stream: TextStream;
  /** Prompt and text. */
  readonly tokens: number[];
}

/** Continues texts with a decoder; each of its sequences is a sample. */
export class TextGenerator {
  /** What the last text took. */
  statistics: GenerationStatistics | undefined;
  readonly #source: Pick<TextSource, "tokenizer" | "endIds">;
  readonly #decoder: Decoder;
  /** The tokens that the decoder has read, by sequence. */
  readonly #read: number[][];

  /** Takes a decoder that has read nothing yet; it stays the caller's. */
  constructor(source: Pick<TextSource, "tokenizer" | "endIds">, decoder: Decoder) {
    this.#source = source;
    this.#decoder = decoder;
    this.#read = Array.from({ length: decoder.sequences }, () => []);
  }

  /** Goes on behind a prompt. What it has in common with what was read before is not read again, as in a conversation.
   * @throws {GenerateError} when the prompt is empty, or leaves no room. */
  async *continue(prompt: readonly number[], options: ContinueOptions): AsyncGenerator<TextPiece, void> {
    const { sequences, maxLength } = this.#decoder, { sampling, maxNewTokens, stop, signal } = options;
    checkPrompt(prompt.length, maxLength);
    const begun = performance.now();
    let live = Array.from({ length: sequences }, (_, number): Sample => {
      const stream = new TextStream(this.#source.tokenizer, { stop, before: prompt.at(-1) });
      return { number, stream, tokens: [...prompt] };
    });
    const known = this.#read.map((tokens) => commonLength(tokens, prompt.slice(0, -1)));
    known.forEach((length, s) => this.#forget(s, length));
    let logits = await this.#extend(known.map((length) => prompt.slice(length)));
    let [newTokens, first] = [0, 0];
    while (live.length > 0) {
      const next: (readonly number[])[] = Array.from({ length: sequences }, () => []), going: Sample[] = [];
      for (const one of live) {
        const { number, stream, tokens } = one, token = this.#draw(logits, one, sampling);
        first ||= performance.now();
        newTokens++;
        this.statistics = {
          ...{ promptTokens: prompt.length, readTokens: prompt.length - Math.min(...known), newTokens },
          ...{ firstTokenMs: first - begun, decodeMs: performance.now() - first },
        };
        const isEnd = this.#source.endIds.includes(token), text = isEnd ? "" : stream.push(token);
        tokens.push(token);
        const end: TextEnd | undefined = isEnd
          ? "end"
          : stream.stopped
          ? "stop"
          : tokens.length - prompt.length >= maxNewTokens
          ? "tokens"
          : tokens.length >= maxLength
          ? "context"
          : signal?.aborted
          ? "abort"
          : undefined;
        if (end) yield { sample: number, text: text + stream.end(), end };
        else {
          going.push(one);
          next[number] = [token];
          if (text !== "") yield { sample: number, text };
        }
      }
      live = going;
      if (live.length > 0) logits = await this.#extend(next);
    }
  }

  #draw(logits: Float32Array, { number, tokens }: Sample, sampling: Sampling): number {
    const { vocabSize } = this.#decoder, begin = number * vocabSize;
    // Rows of the model without a token are never drawn. A copy, as the sampler changes it.
    const own = logits.slice(begin, begin + Math.min(vocabSize, this.#source.tokenizer.vocabSize));
    return sample(own, { sequence: number, position: tokens.length, before: tokens }, sampling);
  }

  async #extend(tokens: readonly (readonly number[])[]): Promise<Float32Array> {
    const logits = await this.#decoder.extend(tokens);
    tokens.forEach((list, s) => this.#read[s].push(...list));
    return logits;
  }

  #forget(sequence: number, length: number): void {
    this.#read[sequence].length = length;
    this.#decoder.truncate(sequence, length);
  }
}

/** @throws {GenerateError} when so many tokens leave nothing to do. */
export function checkPrompt(tokens: number, maxLength: number): void {
  if (tokens === 0) {
    throw new GenerateError("The prompt is empty", "at least one token to go on from", "write a prompt");
  }
  if (tokens >= maxLength) {
    throw new GenerateError(
      `The prompt has ${tokens} tokens`,
      `fewer than the ${maxLength} that the text may have in all`,
      "write a shorter one, or give more room with --context-length, though the model was not made for it",
    );
  }
}

function commonLength(a: readonly number[], b: readonly number[]): number {
  const differs = a.findIndex((token, i) => token !== b[i]);
  return differs < 0 ? a.length : differs;
}
