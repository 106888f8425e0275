import { assert, assertEquals } from "@std/assert";
import { pageText } from "../../../../train/report/live/page.ts";

Deno.test("the scripts of the page find each other within it, and its facts cannot end it", () => {
  const text = pageText({ name: "</script><b>" });
  assertEquals(text.match(/<\/script>/g)?.length, 3);
  const { imports } = JSON.parse(/<script type="importmap">(.*?)<\/script>/s.exec(text)![1]);
  const main = text.slice(text.indexOf('<script type="module">'));
  const asked = [...main.matchAll(/ from "([^"]+)"/g)].map((m) => m[1]);
  assert(asked.length > 1);
  assertEquals(asked.filter((name) => !imports[name]?.startsWith("data:text/javascript")), []);
});
