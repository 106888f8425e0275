/** Golden texts: what a pass prints is held in `tests/goldens/`, so that a change of it is a diff to read.
 * @module */
import { assertEquals } from "@std/assert";

/** Are goldens rewritten instead of compared? `deno task golden:update` says so. */
const isUpdate = Deno.args.includes("--update");

/** Compares a text with `tests/goldens/NAME.txt`, or writes it there.
 * @param name path without the extension, such as `graph/tile`.
 * @throws {Error} when they differ, or when there is no such file. */
export function golden(name: string, actual: string): void {
  const file = new URL(`./goldens/${name}.txt`, import.meta.url);
  if (isUpdate) {
    Deno.mkdirSync(new URL(".", file), { recursive: true });
    return Deno.writeTextFileSync(file, actual);
  }
  let expected: string;
  try {
    expected = Deno.readTextFileSync(file);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new Error(`Cannot compare with golden "${name}": it does not exist\n  fix: deno task golden:update`, {
      cause: error,
    });
  }
  assertEquals(
    actual,
    expected,
    `golden "${name}" differs; if it should, run deno task golden:update and read the diff`,
  );
}
