/** Conversations as the text that a model was trained on, up to where it is to speak.
 * @module */
import { type ChatMessage, ChatTemplate } from "../../data/chat_template.ts";
import type { ModelSource } from "../weights/model_source.ts";
import { GenerateError } from "./error.ts";

/** The text of a conversation, up to where the model is to speak.
 * @throws {GenerateError} when the tokenizer has no template, or refuses the conversation. */
export function chatText(
  { chatTemplate, tokenizer, tokenizerPath }: Pick<ModelSource, "chatTemplate" | "tokenizer" | "tokenizerPath">,
  messages: readonly ChatMessage[],
): string {
  if (chatTemplate === null) {
    throw new GenerateError(
      `The tokenizer of ${tokenizerPath} has no chat template`,
      "chat_template in tokenizer_config.json, or the file chat_template.jinja: a model that was trained on chats has one",
      "choose such a model, or have it continue a text: --prompt TEXT without --chat",
    );
  }
  try {
    return new ChatTemplate(chatTemplate, tokenizer.files.config).render(messages, { ask: true });
  } catch (error) {
    throw new GenerateError(
      `The chat template of ${tokenizerPath} refuses the conversation: ${(error as Error).message}`,
      `messages as that template takes them; these are of ${messages.map(({ role }) => role).join(", ")}`,
      "have user and assistant take turns, or leave the system's message out",
    );
  }
}
