import { assertEquals, assertThrows } from "@std/assert";
import { chatText, encodeMarked } from "../../data/chat.ts";
import { BEGIN_MARK, END_MARK } from "../../data/chat_template.ts";
import { ID, MASKED } from "../../data/packing.ts";
import { chats, goldens, open } from "./chats.ts";

Deno.test("conversations have the ids and the mask that transformers gives them", async (t) => {
  for (const [name, { chats: rows }] of Object.entries(goldens)) {
    for (const end of ["", "_marked"]) {
      await t.step(name + end, async () => {
        const { tokenizer, template } = await open(name, end);
        chats.forEach((messages, n) => {
          const words = encodeMarked(tokenizer, chatText(messages, template, { maskPrompt: true }));
          assertEquals([...words].map((word) => word & ID), rows[n].ids, `conversation ${n}`);
          assertEquals([...words].map((word) => word & MASKED ? 0 : 1), rows[n].mask, `conversation ${n}`);
        });
      });
    }
  }
});

Deno.test("where prompts are learned, too, no token is masked", async () => {
  const { tokenizer, template } = await open("chatml");
  const words = encodeMarked(tokenizer, chatText(chats[0], template, { maskPrompt: false }));
  assertEquals([...words], goldens.chatml.chats[0].ids);
});

Deno.test("what is no conversation is refused with what is wrong about it", async () => {
  const { template } = await open("chatml");
  const user = { role: "user", content: "Hi" };
  const cases: [unknown, string][] = [
    ["Hi", "its messages are a string, no list"],
    [null, "its messages are null, no list"],
    [[], "it has no message"],
    [[user, "Ho"], "message 2 has no role"],
    [[{ role: "user" }], "message 1 (user) has no content"],
    [[user, { role: "assistant", content: [] }], "message 2 (assistant) has content that is no text"],
    [[user], "no message is the assistant's"],
    [[{ role: "user", content: "\ufdd0" }], "message 1 (user) has a character that is none"],
  ];
  for (const [messages, why] of cases) {
    assertThrows(() => chatText(messages, template, { maskPrompt: true }), Error, why);
  }
});

Deno.test("a tokenizer that changes the text cannot tell its tokens apart, and says where", async () => {
  const { tokenizer } = await open("chatml");
  const changing = Object.assign(Object.create(tokenizer), {
    encode: (text: string) => tokenizer.encode(text.toLowerCase()),
    bytesOf: (id: number) => tokenizer.bytesOf(id),
  });
  assertThrows(() => encodeMarked(changing, `${BEGIN_MARK}ab CD${END_MARK}`), Error, 'is not what stands at " CD"');
});
