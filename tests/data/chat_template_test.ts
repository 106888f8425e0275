import { assertEquals, assertThrows } from "@std/assert";
import { BEGIN_MARK, ChatTemplate, END_MARK } from "../../data/chat_template.ts";
import { chats, goldens, open, templateText } from "./chats.ts";

const without = (text: string) => text.replaceAll(BEGIN_MARK, "").replaceAll(END_MARK, "");
const user = { role: "user", content: "Hi" }, assistant = { role: "assistant", content: "Ho" };

Deno.test("templates give the text that transformers' Jinja gives", async (t) => {
  for (const [name, { chats: rows }] of Object.entries(goldens)) {
    for (const end of ["", "_marked"]) {
      await t.step(name + end, async () => {
        const { template } = await open(name, end);
        assertEquals(chats.map((messages) => template.render(messages)), rows.map(({ text }) => text));
        assertEquals(chats.map((messages) => without(template.marked(messages))), rows.map(({ text }) => text));
      });
    }
  }
});

Deno.test("the assistant's is what a message adds behind the words that ask for it, its end included", () => {
  const template = new ChatTemplate(templateText("chatml"), {});
  assertEquals(
    template.marked([user, assistant, user]),
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n\ufdd0Ho<|im_end|>\n\ufdd1<|im_start|>user\nHi<|im_end|>\n",
  );
});

Deno.test("a template's own marks have the last word, with the white space that their tags leave", () => {
  const marked = (source: string) => new ChatTemplate(source, {}).marked([assistant]);
  const body = "{{ messages[0].content }}";
  assertEquals(marked(`a {% generation %}${body}{% endgeneration %} b`), "a \ufdd0Ho\ufdd1 b");
  assertEquals(marked(`a {%- generation -%} ${body} {%- endgeneration -%} b`), "a\ufdd0Ho\ufdd1b");
  assertEquals(marked(`a\n  {% generation %}\n${body}!\n  {% endgeneration %}\nb`), "a\n\ufdd0Ho!\n\ufdd1b");
  assertEquals(marked(`{% generation %}\n  {% if true %}\n${body}{% endif %}{% endgeneration %}`), "\ufdd0Ho\ufdd1");
});

Deno.test("a template that rewrites what came before does not tell what is the assistant's, and says what would", () => {
  const source = "{% for m in messages %}{{ m.role + ('!' if loop.last else '?') }}{% endfor %}";
  assertThrows(
    () => new ChatTemplate(source, {}).marked([user, assistant]),
    Error,
    "writes what comes before message 2 in another way where more follows",
  );
});

Deno.test("a template has the tokens that begin and end a text, and today's date", () => {
  const config = { bos_token: "<s>", eos_token: { content: "</s>" } };
  const of = (source: string) => new ChatTemplate(source, config).render([user]);
  assertEquals(of("{{ bos_token }}{{ eos_token }}{{ 'none' if pad_token is not defined }}"), "<s></s>none");
  assertEquals(of("{{ strftime_now('%Y') }}"), String(new Date().getFullYear()));
});
