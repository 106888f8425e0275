/** `generate()`: a model continues a text, or answers in a conversation.
 * @module */
import type { ChatMessage } from "../../data/chat_template.ts";
import { chatText } from "./chat.ts";
import { openDecoder } from "./decoder.ts";
import { GenerateError } from "./error.ts";
import { samplingOf, type SamplingOptions } from "./sampler.ts";
import { openSource, type RunUnderWay, type TextSource } from "./source.ts";
import { checkPrompt, type GenerationStatistics, TextGenerator, type TextPiece } from "./text_generator.ts";

/** What is generated, and how. */
export interface GenerateOptions extends SamplingOptions {
  /** The text that is continued; what looks like a special token of the tokenizer is one. This or `messages`. */
  readonly prompt?: string;
  /** A conversation that the model answers in, by the chat template of its tokenizer. */
  readonly messages?: readonly ChatMessage[];
  /** Tokens of a sample at most; default 100. */
  readonly maxNewTokens?: number;
  /** So many texts at once, each drawn by itself; default 1. */
  readonly samples?: number;
  /** Texts that end a sample; they are no part of it. */
  readonly stop?: readonly string[];
  /** Folder of the tokenizer, in place of the one that belongs to the model. */
  readonly tokenizer?: string;
  /** Tokens of prompt and text together; default: those that the model was made for. */
  readonly contextLength?: number;
  /** Element type of weights, products and cache; default `f32`. */
  readonly dtype?: "f32" | "bf16";
  /** Where it is done: `cpu`, the default, `cuda`, an NVIDIA GPU, or `auto`: a GPU where one is found. */
  readonly device?: "auto" | "cpu" | "cuda";
  /** CPU threads; default 0: one for each core that the process may use. */
  readonly threads?: number;
  /** Ends the text behind the token under way. */
  readonly signal?: AbortSignal;
  /** Is told at the end what it took. */
  readonly done?: (statistics: GenerationStatistics) => void;
}

/** Continues a text. It comes in pieces of whole characters, as soon as they are certain; of several samples in turns.
 * @param from a checkpoint such as `outputs/checkpoint/step-100`, a folder of Hugging Face's or Meta's, a file of GGUF, or a run between two
 * steps (a `Trainer`).
 * @throws {GenerateError} when an option cannot be. @throws {CheckpointError} about weights. @throws {DataError} about the tokenizer.
 * @example
 * ```ts ignore
 * import { generate } from "jsr:@libtitan/titan";
 *
 * for await (const { text } of generate("outputs/checkpoint/step-100", { prompt: "Fellow citizens" })) console.log(text);
 * ``` */
export async function* generate(
  from: string | RunUnderWay,
  options: GenerateOptions = {},
): AsyncGenerator<TextPiece, void> {
  const { prompt, messages } = options;
  samplingOf(options); // a mistake is told before anything is opened
  if ((prompt === undefined) === (messages === undefined)) {
    throw new GenerateError(
      prompt === undefined ? "There is neither a prompt nor a conversation" : "There are a prompt and a conversation",
      "one of prompt and messages",
      "give the one that is meant",
    );
  }
  yield* generateFrom(await openSource(from, options), options);
}

/** The same with what is open already. */
export async function* generateFrom(source: TextSource, options: GenerateOptions): AsyncGenerator<TextPiece, void> {
  const { prompt = "", messages, stop = [], signal, done } = options, sampling = samplingOf(options);
  const maxNewTokens = countOf("maxNewTokens", options.maxNewTokens ?? 100);
  const sequences = countOf("samples", options.samples ?? 1);
  const tokens = messages ? chatTokens(source, messages) : promptTokens(source, prompt);
  const maxLength = roomFor(source, tokens.length + maxNewTokens, options.contextLength);
  checkPrompt(tokens.length, maxLength);
  using decoder = await openDecoder(source.weights, { ...options, sequences, maxLength, model: source.model });
  const generator = new TextGenerator(source, decoder);
  yield* generator.continue(tokens, { sampling, maxNewTokens, stop, signal });
  done?.(generator.statistics!);
}

/** The tokens of a text, as its model expects a text to begin; a token that begins it already is not put there twice. */
export function promptTokens(
  { tokenizer, addsBos }: Pick<TextSource, "tokenizer" | "addsBos">,
  text: string,
): number[] {
  const tokens = [...tokenizer.encode(text, { special: true })], { bosId } = tokenizer;
  return addsBos && bosId !== null && tokens[0] !== bosId ? [bosId, ...tokens] : tokens;
}

/** The tokens of a conversation, up to where the model is to speak. */
export function chatTokens(source: TextSource, messages: readonly ChatMessage[]): number[] {
  return [...source.tokenizer.encode(chatText(source, messages), { special: true })];
}

/** Tokens that there is to be room for: as many as may be needed, but no more than the model was made for.
 * @throws {GenerateError} when the length that is asked for cannot be. */
export function roomFor(
  { contextLength }: Pick<TextSource, "contextLength">,
  needed: number,
  asked: number | undefined,
): number {
  if (asked !== undefined) return Math.min(needed, countOf("contextLength", asked));
  return Math.min(needed, contextLength ?? Infinity);
}

/** @throws {GenerateError} when it is no whole number from 1 on. */
function countOf(name: string, value: number): number {
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw new GenerateError(`${name} is ${value}`, "a whole number from 1 on", `change ${name}`);
}
