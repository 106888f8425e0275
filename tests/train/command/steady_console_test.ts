import { assertEquals } from "@std/assert";
import { SteadyConsole } from "../../../train/command/steady_console.ts";

/** Runs with a console of one's own. */
function over(console_: Partial<Pick<typeof console, "log" | "error">>, run: () => void): void {
  const before = { log: console.log, error: console.error };
  Object.assign(console, console_);
  try {
    using _steady = new SteadyConsole();
    run();
  } finally {
    Object.assign(console, before);
  }
}

const full = () => {
  throw new Error("No space left");
};

Deno.test("what cannot be printed ends nothing, and is told once on the other stream", () => {
  const told: string[] = [];
  over({ log: full, error: (text) => told.push(text) }, () => {
    console.log("step 1");
    console.error("an error");
    console.log("step 2");
  });
  assertEquals(told, ["warning: Cannot print: No space left; the run goes on", "an error"]);
  told.length = 0;
  over({ error: full, log: (text) => told.push(text) }, () => console.error("an error"));
  assertEquals(told, ["warning: Cannot print: No space left; the run goes on"]);
  over({ log: full, error: full }, () => console.log("step 1"));
});

Deno.test("the console is as it was afterwards", () => {
  const { log, error } = console;
  over({}, () => console.log());
  assertEquals([console.log, console.error], [log, error]);
});
