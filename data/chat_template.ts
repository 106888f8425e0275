/** Conversations as text, by the template in Jinja that a tokenizer comes with, and which parts of the text are the assistant's.
 *
 * A template may mark these itself, by `{% generation %}` and `{% endgeneration %}` as `transformers` has them. Of others, what the
 * assistant says is what a message adds to the conversation before it, behind the words that ask for it (`add_generation_prompt`).
 * @module */
import { Template } from "@huggingface/jinja";
import { BYTES } from "./byte_tokenizer.ts";
import { isGgufName } from "./gguf.ts";
import { isMissing } from "./source.ts";
import { tokenText } from "./tokenizer_json.ts";

/** What somebody has said. */
export interface ChatMessage {
  /** Who: `system`, `user` or `assistant`; some templates know others. */
  readonly role: string;
  /** What. */
  readonly content: string;
}

/** What begins and ends the assistant's part of a text: characters that Unicode keeps for a program's own use, and no text has. */
export const [BEGIN_MARK, END_MARK]: readonly [string, string] = ["\ufdd0", "\ufdd1"];

/** A template of conversations. */
export class ChatTemplate {
  readonly #template: Template;
  /** The same with marks; undefined: it does not tell what is the assistant's. */
  readonly #marked: Template | undefined;
  readonly #special: Readonly<Record<string, string>>;

  /** @param config what `tokenizer_config.json` says. @throws {Error} where the template is none. */
  constructor(source: string, config: Readonly<Record<string, unknown>>) {
    const marked = withMarks(source);
    this.#template = new Template(source);
    this.#marked = marked === source ? undefined : new Template(marked);
    const keys = ["bos_token", "eos_token", "unk_token", "pad_token"];
    this.#special = Object.fromEntries(
      keys.map((key) => [key, tokenText(config[key]) ?? ""] as const).filter(([key, text]) =>
        text !== "" || key === "bos_token" || key === "eos_token"
      ),
    );
  }

  /** The text of a conversation, up to where the model is to speak if that is asked for.
   * @throws {Error} where the template refuses it. */
  render(messages: readonly ChatMessage[], { ask = false }: { readonly ask?: boolean } = {}): string {
    return this.#render(this.#template, messages, ask);
  }

  /** The text of a conversation with marks around what is the assistant's.
   * @throws {Error} where the template refuses it, or does not tell. */
  marked(messages: readonly ChatMessage[]): string {
    if (this.#marked) return this.#render(this.#marked, messages, false);
    const text = this.render(messages), parts: string[] = [];
    let at = 0;
    messages.forEach(({ role }, n) => {
      if (role !== "assistant") return;
      const begin = this.render(messages.slice(0, n), { ask: true });
      const end = n === messages.length - 1 ? text : this.render(messages.slice(0, n + 1));
      if (begin.length < at || !end.startsWith(begin) || !text.startsWith(end)) {
        throw new Error(
          `the template writes what comes before message ${
            n + 1
          } in another way where more follows, so that nothing tells which part ` +
            "is the assistant's; {% generation %} in the template would",
        );
      }
      parts.push(text.slice(at, begin.length), BEGIN_MARK, text.slice(begin.length, end.length), END_MARK);
      at = end.length;
    });
    return parts.join("") + text.slice(at);
  }

  #render(template: Template, messages: readonly ChatMessage[], ask: boolean): string {
    return template.render({
      messages: messages.map((message) => ({ ...message })),
      add_generation_prompt: ask,
      ...this.#special,
    });
  }
}

/** The template of a tokenizer's chats, in Jinja; null where there is none.
 * @param from its folder, its file of GGUF, or `bytes`. @param config what its `tokenizer_config.json` says, or that file's header. */
export function chatTemplateOf(from: string, config: Readonly<Record<string, unknown>>): string | null {
  if (from !== BYTES && !isGgufName(from)) {
    try {
      return Deno.readTextFileSync(`${from}/chat_template.jinja`);
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  }
  const { chat_template: template } = config;
  if (typeof template === "string") return template;
  if (!Array.isArray(template)) return null;
  const named = template.find((t) => t.name === "default") ?? template[0];
  return typeof named?.template === "string" ? named.template : null;
}

/** Writes marks where a template has tags of generation, with the spaces and ends of lines that a tag would leave. */
function withMarks(source: string): string {
  return source.replace(
    /(^[ \t]*)?\{%(-?)\s*(end)?generation\s*(-?)%\}(?=(\n)?)/gm,
    (_, indent, left, end, right, line) => {
      const mark = end === undefined ? BEGIN_MARK : END_MARK;
      return `${left === "-" ? indent ?? "" : ""}{{${left} '${mark}' ${right}}}${right === "" && line ? "{##}" : ""}`;
    },
  );
}
