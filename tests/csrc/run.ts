/** Programs that the build makes, run by tests.
 * @module */
import { assertEquals } from "@std/assert";

/** Where `deno task build` builds. */
export const build = new URL("../../build/cmake", import.meta.url).pathname;

/** Output of a program, which must end with 0. */
export async function run(command: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(command, { args }).output();
  const text = new TextDecoder().decode(stdout);
  assertEquals(code, 0, `${command} ${args.join(" ")}\n${text}${new TextDecoder().decode(stderr)}`);
  return text;
}
