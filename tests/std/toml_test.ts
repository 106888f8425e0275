import { assertEquals, assertMatch, assertStrictEquals, assertThrows } from "@std/assert";
import { parse, stringify } from "@std/toml";

Deno.test("a TOML document becomes plain objects", () => {
  const table = parse('[model]\nname = "debug"\nsizes = [1, 2.5]\n[model.nested]\non = true');
  assertEquals(table, { model: { name: "debug", sizes: [1, 2.5], nested: { on: true } } });
  assertStrictEquals(Object.getPrototypeOf(table), Object.prototype);
});

Deno.test("a mistake in a TOML document is reported with line and column", () => {
  const error = assertThrows(() => parse("[a]\nb = 1\nb = 2"), SyntaxError, "line 3, column 1");
  assertMatch(error.message, /already defined.*\n[^]*b = 2/);
});

Deno.test("a document that is made of plain objects parses to them", () => {
  const table = { model: { name: 'a "b"\n\\ # \u007f é', sizes: [1, 2.5, 1e-8, 1e21], on: true, none: [] } };
  assertEquals(parse(stringify(table)), table);
});
