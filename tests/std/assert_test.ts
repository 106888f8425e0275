import * as std from "@std/assert";
import { assertEquals, AssertionError, assertRejects, assertThrows } from "@std/assert";

Deno.test("equality is structural and strict about types", () => {
  std.assertEquals({ a: [NaN, new Map([[1, new Float32Array(2)]])] }, {
    a: [NaN, new Map([[1, new Float32Array(2)]])],
  });
  std.assertNotEquals<unknown>(new Uint8Array(2), [0, 0]);
  std.assertNotEquals<unknown>({ a: undefined }, {});
});

const failing: Record<string, () => void> = {
  assert: () => std.assert(0, "why"),
  assertEquals: () => std.assertEquals({ a: 1 }, { a: 2 }, "why"),
  assertNotEquals: () => std.assertNotEquals([1], [1], "why"),
  assertStrictEquals: () => std.assertStrictEquals([1], [1], "why"),
  assertAlmostEquals: () => std.assertAlmostEquals(1, 1.01, 1e-3, "why"),
  "assertAlmostEquals of NaN": () => std.assertAlmostEquals(NaN, 1, 1e-3, "why"),
  assertExists: () => std.assertExists(undefined, "why"),
  assertStringIncludes: () => std.assertStringIncludes("abc", "d", "why"),
  assertMatch: () => std.assertMatch("abc", /d/, "why"),
  assertInstanceOf: () => std.assertInstanceOf([], Map, "why"),
  "assertThrows without a throw": () => std.assertThrows(() => 1, Error, "", "why"),
  "assertThrows with another class": () => std.assertThrows(() => JSON.parse("{"), RangeError, "", "why"),
  "assertThrows with another message": () => std.assertThrows(() => JSON.parse("{"), SyntaxError, "xyz", "why"),
};
for (const [name, fn] of Object.entries(failing)) {
  Deno.test(`${name} fails with an AssertionError that gives the caller's reason`, () => {
    assertThrows(fn, AssertionError, "why");
  });
}

Deno.test("what holds passes, and what was thrown is returned", async () => {
  std.assert(1);
  std.assertStrictEquals(NaN, NaN);
  std.assertAlmostEquals(1 + 1e-9, 1);
  std.assertExists(0);
  std.assertStringIncludes("abc", "b");
  std.assertMatch("abc", /b/);
  std.assertInstanceOf(new Map(), Map);
  const error = new RangeError("too far");
  assertEquals(
    assertThrows(
      () => {
        throw error;
      },
      RangeError,
      "far",
    ),
    error,
  );
  assertEquals(await assertRejects(() => Promise.reject(error), RangeError, "far"), error);
  await assertRejects(() => assertRejects(() => Promise.resolve(1)), AssertionError, "rejected");
});
