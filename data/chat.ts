/** Conversations as tokens, of which the model learns the assistant's alone: `{"messages": [{"role": "user", "content": "..."}, ...]}`.
 * @module */
import { BEGIN_MARK, type ChatMessage, ChatTemplate, chatTemplateOf, END_MARK } from "./chat_template.ts";
import { SAMPLE } from "./dataset.ts";
import { DataError } from "./error.ts";
import { MASKED, type Packing } from "./packing.ts";
import { type Tokenizer, tokenizerName, tokenizerPath } from "./tokenizer.ts";

const MARKS = new RegExp(`[${BEGIN_MARK}${END_MARK}]`);
const decoder = new TextDecoder(), encoder = new TextEncoder();

/** How conversations are read. */
export interface ChatOptions {
  /** Are the assistant's tokens alone learned? Default: yes; no: all are. */
  readonly maskPrompt?: boolean;
  /** What becomes of a conversation that is longer than a row: `cut` keeps its beginning, `drop` leaves it out. Default: `cut`. */
  readonly tooLong?: "cut" | "drop";
}

/** What conversations become tokens with. */
export interface ChatsOptions {
  /** Folder of the tokenizer; default: the sample's, which has no template. */
  readonly tokenizer?: string | URL;
  readonly seqLen: number;
  readonly packing?: Packing;
  readonly chat?: ChatOptions;
  /** Is told of a conversation that is left out. */
  readonly leaveOut: (error: DataError) => void;
}

/** Makes tokens of conversations, by the template of a tokenizer. */
export class Chats {
  /** Number of ids. */
  readonly vocabSize: number;
  /** Tells what they become from what others make of them. */
  readonly identity: unknown;
  /** Conversations that were cut. */
  cut = 0;
  readonly #tokenizer: Tokenizer;
  readonly #template: ChatTemplate;
  readonly #maskPrompt: boolean;
  readonly #options: ChatsOptions;

  /** @throws {DataError} when the tokenizer has no template, or one that is none. */
  constructor(tokenizer: Tokenizer, options: ChatsOptions) {
    const path = tokenizerPath(tokenizerName(options.tokenizer ?? SAMPLE)), { config } = tokenizer.files;
    const source = chatTemplateOf(path, config), { packing = "best-fit", chat = {} } = options;
    if (source === null) throw noTemplate(path, "it has none");
    if (packing !== "best-fit") {
      throw new DataError({
        code: "bad_option",
        what: `Cannot pack conversations as ${packing}`,
        expected: "best-fit, since the end of one is known by where it lies, not by a token",
        fix: 'write data.packing = "best-fit" (option packing), or leave it out',
      });
    }
    try {
      this.#template = new ChatTemplate(source, config);
    } catch (error) {
      throw noTemplate(path, (error as Error).message);
    }
    this.#tokenizer = tokenizer;
    this.#options = options;
    this.#maskPrompt = chat.maskPrompt ?? true;
    this.vocabSize = tokenizer.vocabSize;
    this.identity = [source, this.#maskPrompt, chat.tooLong ?? "cut"];
  }

  /** The marked text of a conversation as a file has it.
   * @throws {Error} that says what is wrong with it. */
  readonly textOf = (value: unknown): string => chatText(value, this.#template, { maskPrompt: this.#maskPrompt });

  /** The tokens of a marked text, with flags; none where it is left out.
   * @throws {DataError} when they cannot be told apart. */
  encode(marked: string): Int32Array {
    const { seqLen, chat, leaveOut } = this.#options, most = seqLen + 1, none = new Int32Array(0);
    let words: Int32Array;
    try {
      words = encodeMarked(this.#tokenizer, marked);
    } catch (error) {
      throw new DataError({
        code: "bad_tokenizer",
        what: `Cannot tell which tokens of a conversation are the assistant's: ${(error as Error).message}`,
        expected: "a tokenizer whose tokens spell the text",
        fix: "choose another tokenizer",
      }, { cause: error });
    }
    if (words.length <= most) return words;
    const start = JSON.stringify(marked.split(MARKS).join("").slice(0, 60));
    const tooLong = (expected: string, fix: string) =>
      leaveOut(
        new DataError({
          code: "too_long",
          what: `A conversation of ${words.length} tokens that begins with ${start} is longer than a row`,
          expected,
          fix,
        }),
      );
    if (chat?.tooLong === "drop") {
      tooLong(`at most ${most} tokens`, 'raise training.seq_len, or write data.too_long = "cut"');
      return none;
    }
    this.cut++;
    const kept = words.subarray(0, most);
    if (kept.some((word, n) => n > 0 && !(word & MASKED))) return kept;
    tooLong(`something of the assistant's within ${most} tokens`, "raise training.seq_len");
    return none;
  }
}

function noTemplate(path: string, why: string): DataError {
  return new DataError({
    code: "bad_tokenizer",
    what: `Cannot use the chat template of the tokenizer ${path}: ${why}`,
    expected: "chat_template in tokenizer_config.json, or the file chat_template.jinja beside it",
    fix: "take the tokenizer of a model for chats, write such a file, or learn one: deno task tokenizer train --chat",
  });
}

/** The marked text of a conversation as a file has it.
 * @throws {Error} that says what is wrong with it. */
export function chatText(
  value: unknown,
  template: ChatTemplate,
  { maskPrompt }: { readonly maskPrompt: boolean },
): string {
  const messages = messagesOf(value);
  if (!maskPrompt) return `${BEGIN_MARK}${template.render(messages)}${END_MARK}`;
  const text = template.marked(messages);
  if (text.includes(BEGIN_MARK)) return text;
  throw new Error("no message is the assistant's, so there is nothing to learn");
}

function messagesOf(value: unknown): ChatMessage[] {
  if (value === undefined || value === null) throw new Error("it has no messages");
  if (!Array.isArray(value)) throw new Error(`its messages are no list, but a ${typeof value}`);
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
