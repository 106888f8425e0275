/** Conversations, templates and tokenizers of `tests/goldens/chats/`, and what `transformers` makes of them. @module */
import { type ChatMessage, ChatTemplate } from "../../data/chat_template.ts";
import { Tokenizer } from "../../data/tokenizer.ts";

export const chatsFolder = new URL("../goldens/chats/", import.meta.url);

/** What a template makes of the conversations, and the loss of what the assistant says in all of them. */
export interface Golden {
  readonly chats: readonly { readonly text: string; readonly ids: number[]; readonly mask: number[] }[];
  readonly vocab_size: number;
  readonly count: number;
  readonly loss: number;
}

const read = (name: string): string => Deno.readTextFileSync(new URL(name, chatsFolder));

export const goldens: Readonly<Record<string, Golden>> = JSON.parse(read("goldens.json"));
export const chats: readonly ChatMessage[][] = read("chats.jsonl").trim().split("\n").map((line) =>
  JSON.parse(line).messages
);

/** Where the tokenizer of a golden lies. */
export const tokenizerFolder = (name: string): string =>
  new URL(
    name === "llama3" ? "../tokenizers/tiktoken" : name === "zephyr" ? "../tokenizers/sentencepiece_bpe" : "byte_level",
    chatsFolder,
  ).pathname;

export const templateText = (name: string): string => read(`templates/${name}.jinja`);

/** The tokenizer and template of a golden.
 * @param end `""` or `"_marked"`. */
export async function open(name: string, end = ""): Promise<{ tokenizer: Tokenizer; template: ChatTemplate }> {
  const tokenizer = await Tokenizer.open(tokenizerFolder(name));
  return { tokenizer, template: new ChatTemplate(templateText(name + end), tokenizer.files.config) };
}
