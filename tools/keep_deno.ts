/**
 * Lets `npx deno` in this checkout start the Deno that runs now, without asking a registry: npx takes a program that it finds in
 * `node_modules/.bin` of the folder where it runs, or of one above. Without a network it would wait for minutes otherwise. Such a program
 * also gets the signals that npx gets; those to npx' own copy of Deno end in a process between.
 * @module
 */

const FOLDER = "node_modules/.bin";
const SCRIPT = `${FOLDER}/deno`;

/** Writes a script that starts a Deno, unless there is one: which Deno runs here changes only where somebody deletes it, or that Deno. */
export function keepDeno(program: string = Deno.execPath()): void {
  try {
    Deno.lstatSync(SCRIPT);
    return;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  const quoted = `'${program.replaceAll("'", `'\\''`)}'`, own = `${SCRIPT}.${Deno.pid}`;
  const lines = [
    "#!/bin/sh",
    `# Starts Deno ${Deno.version.deno}, without asking a registry for a newer one; written by tools/keep_deno.ts.`,
    `[ ! -x ${quoted} ] || exec ${quoted} "$@"`,
    `rm -- "$0" # that Deno is gone: npx fetches one`,
    `exec npx -y deno "$@"`,
  ];
  try {
    Deno.mkdirSync(FOLDER, { recursive: true });
    Deno.writeTextFileSync(own, lines.join("\n") + "\n", { mode: 0o755 });
    Deno.renameSync(own, SCRIPT);
  } catch (error) {
    if (!isUnwritable(error)) throw error; // where nobody may write, npx asks each time
  }
}

/** Does an error say that this place takes no files? */
export function isUnwritable(error: unknown): error is Error {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return ["EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT"].includes(code);
}
