import { assertEquals } from "@std/assert";
import { errors } from "../parallel/planted_errors.ts";

Deno.test("every error that is to be planted in a rule has its one place there", async () => {
  const places = await Promise.all(errors.map(async ({ file, before, what }) => {
    const text = await Deno.readTextFile(new URL(`../../${file}`, import.meta.url));
    return { what, found: text.split(before).length - 1 };
  }));
  assertEquals(places.filter(({ found }) => found !== 1), []);
});
