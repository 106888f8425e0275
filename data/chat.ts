/** Conversations as tokens, of which the model learns the assistant's alone: `{"messages": [{"role": "user", "content": "..."}, ...]}`.
 * @module */
import { BEGIN_MARK, type ChatMessage, type ChatTemplate, END_MARK } from "./chat_template.ts";
import { MASKED } from "./packing.ts";
import type { Tokenizer } from "./tokenizer.ts";

const MARKS = new RegExp(`[${BEGIN_MARK}${END_MARK}]`);
const decoder = new TextDecoder(), encoder = new TextEncoder();

/** Which tokens of conversations are learned. */
export interface ChatOptions {
  /** Are the assistant's alone learned? Else all are. */
  readonly maskPrompt: boolean;
}

/** The marked text of a conversation as a file has it.
 * @throws {Error} that says what is wrong with it. */
export function chatText(value: unknown, template: ChatTemplate, { maskPrompt }: ChatOptions): string {
  const messages = messagesOf(value);
  if (!maskPrompt) return `${BEGIN_MARK}${template.render(messages)}${END_MARK}`;
  const text = template.marked(messages);
  if (text.includes(BEGIN_MARK)) return text;
  throw new Error("no message is the assistant's, so there is nothing to learn");
}

function messagesOf(value: unknown): ChatMessage[] {
  if (!Array.isArray(value)) {
    throw new Error(`its messages are ${value === null ? "null" : `a ${typeof value}`}, no list`);
  }
  if (value.length === 0) throw new Error("it has no message");
  return value.map((message, n) => {
    const { role, content } = (message ?? {}) as Record<string, unknown>;
    if (typeof role !== "string") throw new Error(`message ${n + 1} has no role`);
    if (typeof content !== "string") {
      throw new Error(
        `message ${n + 1} (${role}) has ${content === undefined ? "no content" : "content that is no text"}`,
      );
    }
    if (MARKS.test(content)) {
      throw new Error(`message ${n + 1} (${role}) has a character that is none (U+FDD0 or U+FDD1)`);
    }
    return message as ChatMessage;
  });
}

/** The tokens of a marked text: those outside of the marks are {@linkcode MASKED}. A token that reaches over a mark is learned.
 * @throws {Error} where the tokens do not spell the text, so that they cannot be told apart. */
export function encodeMarked(tokenizer: Tokenizer, marked: string): Int32Array {
  const parts = marked.split(MARKS), text = parts.join(""), bytes = encoder.encode(text);
  /** Which bytes are learned: of parts, every second one. */
  const learned = new Uint8Array(bytes.length);
  let at = 0;
  parts.forEach((part, n) => {
    const { length } = encoder.encode(part);
    if (n % 2 === 1) learned.fill(1, at, at + length);
    at += length;
  });
  const ids = tokenizer.encode(text, { special: true });
  at = 0;
  ids.forEach((id, n) => {
    const start = at;
    for (const byte of tokenizer.bytesOf(id)) {
      if (byte === bytes[at]) at++;
      // SentencePiece puts a space of its own before a text
      else if (byte !== 0x20) {
        throw new Error(`token ${n} (${id}) is not what stands at ${show(bytes.subarray(start))}`);
      }
    }
    // A token of no byte is such a space; it is learned where what stands on both sides is.
    const isLearned = at > start ? learned.subarray(start, at).includes(1) : learned[start - 1] && learned[start];
    if (!isLearned) ids[n] |= MASKED;
  });
  if (at !== bytes.length) throw new Error(`the tokens end before ${show(bytes.subarray(at))}`);
  return ids;
}

const show = (bytes: Uint8Array): string => JSON.stringify(decoder.decode(bytes.subarray(0, 24)));
