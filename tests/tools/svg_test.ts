import { assertEquals } from "@std/assert";
import { label, sheet, ticks } from "../../tools/svg.ts";

Deno.test("ticks are round numbers within the range", () => {
  assertEquals(ticks(0, 120, 8), [0, 20, 40, 60, 80, 100, 120]);
  assertEquals(ticks(4, 9, 6), [4, 5, 6, 7, 8, 9]);
  assertEquals(ticks(0.1, 0.4, 3), [0.1, 0.2, 0.3, 0.4]);
  assertEquals(ticks(0, 7, 8), [0, 1, 2, 3, 4, 5, 6, 7]);
});

Deno.test("a title and a label are text, whatever they hold", () => {
  const svg = sheet("a < b", [20, 10], [label(1, 2.25, "c & <d>", 'fill="red"')]);
  assertEquals(svg.match(/<title>.*<\/title>|<text.*/g), [
    "<title>a &lt; b</title>",
    '<text x="1.0" y="2.3" fill="red">c &amp; &lt;d&gt;</text>',
  ]);
});
