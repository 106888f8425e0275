import { assert, assertEquals } from "@std/assert";
import { terminalPicture, timed } from "../../tools/draw_terminal.ts";

Deno.test("what is typed takes its time, what is printed comes at once behind it, and a pause is a pause", () => {
  const [typed, first, second, after] = timed("$ ls -l\na <b> & c\nd\npause 2\ne\n");
  assertEquals([typed.text, typed.isTyped, first.isTyped], ["ls -l", true, false]);
  assert(first.at - typed.at > 5 * 0.03);
  assert(second.at - first.at < 0.5 && second.at > first.at);
  assert(after.at - second.at > 2);
});

Deno.test("a session is one picture: text is text, each character is shown, and nothing is loaded", () => {
  const picture = terminalPicture("$ ls\na <b> & c\n", "A list & more");
  assert(picture.includes("a &lt;b&gt; &amp; c</text>"));
  assert(picture.includes("<title>A list &amp; more</title>"));
  assertEquals(
    picture.replace(/<title>.*<\/title>/, "").match(/<tspan[^>]*>([^<]*)/g)!.map((t) => t.replace(/.*>/, "")).join(""),
    "$ ls",
  );
  assertEquals(picture.match(/href|url\(|@import/g), null);
});

Deno.test("the terminals of README and of the book are drawn from their sessions", () => {
  const folder = new URL("../../docs/terminal/", import.meta.url);
  const read = (name: string) => Deno.readTextFileSync(new URL(name, folder));
  const pictures = [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) => name.endsWith(".svg"));
  assertEquals(pictures.toSorted(), ["chat.svg", "data.svg", "error.svg", "gradient.svg", "tour.svg"]);
  for (const name of pictures) {
    assertEquals(read(name), terminalPicture(read(name.replace(".svg", ".txt")), "A session in a terminal"), name);
  }
});
