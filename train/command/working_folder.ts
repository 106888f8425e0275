/** Where the paths that a user gives begin.
 * @module */
import { type Environment, readable } from "../../launch/world.ts";

/** Goes where the user stands. `deno task` runs in the folder of `deno.json`, and says in INIT_CWD where it was called; whatever path is
 * given, on the command line or in a config, is meant from there. A process that runs elsewhere is where it is meant to be.
 * @param home where tasks of this package run. */
export function enterWorkingFolder(home: URL = new URL("../..", import.meta.url), env: Environment = readable): void {
  const called = env.get("INIT_CWD");
  if (called === undefined || home.protocol !== "file:") return;
  if (Deno.permissions.querySync({ name: "read" }).state !== "granted") return; // nor could it read another folder
  const same = (path: string | URL) => Deno.realPathSync(path) === Deno.realPathSync(home);
  if (same(Deno.cwd()) && !same(called)) Deno.chdir(called);
}
