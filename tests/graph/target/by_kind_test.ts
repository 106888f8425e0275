import { assertEquals } from "@std/assert";
import { targets } from "../../../graph/target/by_kind.ts";

Deno.test("each kind of device has the target of its name, as programs have it", () => {
  for (const [kind, { name }] of Object.entries(targets)) assertEquals(name, kind);
});
