import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { SAMPLE } from "../../../data/dataset.ts";
import { Tokenizer } from "../../../data/tokenizer.ts";
import { chatText } from "../../../train/generate/chat.ts";
import { GenerateError } from "../../../train/generate/error.ts";

const tokenizer = await Tokenizer.open(SAMPLE);
const source = (chatTemplate: string | null) => ({ chatTemplate, tokenizer, tokenizerPath: "some/folder" });

/** As SmolLM2's. */
const CHATML = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}" +
  "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + " +
  "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

Deno.test("a conversation is what the template makes of it, up to where the model speaks", () => {
  const user = { role: "user", content: "Hi {{ x }}" };
  assertEquals(
    chatText(source(CHATML), [user]),
    "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nHi {{ x }}<|im_end|>\n<|im_start|>assistant\n",
  );
  assertEquals(
    chatText(source(CHATML), [{ role: "system", content: "Be short." }, user, { role: "assistant", content: "Yes" }]),
    "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHi {{ x }}<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n" +
      "<|im_start|>assistant\n",
  );
});

Deno.test("a template has the tokens that begin and end a text", () => {
  assertEquals(
    chatText(source("{{ bos_token }}{{ messages[0].content | trim }}{{ eos_token }}"), [{
      role: "user",
      content: " a ",
    }]),
    "<|begin_of_text|>a<|end_of_text|>",
  );
});

Deno.test("without a template, and where the template refuses, it is told what to do", () => {
  const none = assertThrows(() => chatText(source(null), []), GenerateError);
  assertStringIncludes(none.message, "The tokenizer of some/folder has no chat template");
  assertStringIncludes(none.message, "--prompt TEXT without --chat");
  const refusing = source("{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}");
  const error = assertThrows(() => chatText(refusing, [{ role: "system", content: "" }]), GenerateError);
  assertStringIncludes(error.message, "no system here");
  assertStringIncludes(error.message, "these are of system");
  assertThrows(() => chatText(source("{% if %}"), []), GenerateError, "refuses the conversation");
});
