/** What Node runs of the npm package: Deno in Node's place, which opens no native library. Deno comes with the package, as one of its
 * dependencies. It gets the program, its arguments, the terminal and signals; its exit code, or the signal that ended it, becomes Node's.
 * @module */
import { spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import process from "node:process";
import { isMainThread } from "node:worker_threads";

/** Has Deno take packages from where npm has put them, also where no package.json is near, as npm puts what is for all folders. */
const IN_PLACE = "--node-modules-dir=manual";

/** Runs the program that imports the package again, by Deno, and ends as that does.
 * @param from the address of a module of the package.
 * @throws {Error} where Node runs no file, or a thread beside the program's first. */
export async function runAgainByDeno(from: string): Promise<never> {
  const [, program, ...args] = process.argv, options = process.execArgv.join(" ");
  if (program === undefined || !isMainThread) {
    const what = isMainThread ? "text that is no file" : "a worker";
    throw new Error(
      refusal(`libtitan needs Deno, and Node runs ${what}`, "a program in a file", "npx deno run -A FILE"),
    );
  }
  const without = options === "" ? "" : ` (without Node's ${options})`;
  console.error(`libtitan: Node opens no native library, so Deno runs ${program} again${without}`);
  return await runByDeno(from, program, args);
}

/** Runs a program by Deno, with leave to do all, and ends as that does.
 * @param from the address of a module of the package. */
export async function runByDeno(from: string, program: string, args: readonly string[]): Promise<never> {
  const deno = denoProgram(from);
  // Before there is a process, so that none outlives this one; they are heard only after.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2"] as const) {
    process.on(signal, () => child.kill(signal));
  }
  const child = spawn(deno, ["run", "--quiet", IN_PLACE, "-A", program, ...args], { stdio: "inherit" });
  return await new Promise((_, reject) => {
    child.on("error", reject);
    child.on("exit", (code, signal) => {
      if (signal === null) process.exit(code ?? 1);
      process.removeAllListeners(signal);
      process.kill(process.pid, signal);
    });
  });
}

/** The program of Deno. npm's package has it where its own installation has put it, which npm may have been told to leave out; then it is
 * put there now. It is not started through that package's command, which passes no signals on.
 * @throws {Error} where there is none. */
function denoProgram(from: string): string {
  const require = createRequire(from);
  let folder: string;
  try {
    folder = dirname(require.resolve("deno/package.json"));
  } catch {
    const expected = "npm's package deno, on which libtitan's depends";
    throw new Error(refusal("Cannot find Deno, which runs libtitan in Node's place", expected, "npm install deno"));
  }
  try {
    accessSync(`${folder}/deno`, constants.X_OK);
    return `${folder}/deno`;
  } catch {
    return require(`${folder}/install_api.cjs`).runInstall();
  }
}

function refusal(what: string, expected: string, fix: string): string {
  return `${what}\n  expected: ${expected}\n  fix: ${fix}`;
}
