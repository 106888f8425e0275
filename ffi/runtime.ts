/** What `mod.ts` imports first: under another runtime than Deno it says so, before something fails for want of Deno. It has no types, so that
 * Node can run it as it is.
 * @module */
if (Reflect.get(globalThis, "Deno") === undefined) {
  const node = Reflect.get(globalThis, "process")?.versions?.node;
  throw new Error(
    [
      `libtitan needs Deno: it opens its native library, reads data in workers, and asks for leave by Deno's means; this is ${
        node ? `Node ${node}` : "another runtime"
      }`,
      "  expected: a program that Deno runs; Node alone is enough to start it",
      "  fix: npx -y deno run -A FILE",
    ].join("\n"),
  );
}
