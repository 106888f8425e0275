/** Ranks without MPI, as real processes: they meet at the store of rank 0 and exchange over Gloo. Needs the communication module
 * (`deno task setup --gloo`); without it such tests are skipped.
 * @module */
import { assertEquals } from "@std/assert";
import { modulePath } from "../../ffi/comm.ts";
import { library } from "../../ffi/library.ts";
import { LAUNCHED } from "../../launch/world.ts";
import { variablesOf } from "../../launch/processes.ts";

const lacking = !exists(modulePath("gloo"));
if (lacking) {
  console.error(`Tests of ranks without MPI are skipped: no ${modulePath("gloo")} (fix: deno task setup --gloo)`);
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** Where ranks are started: how many, which script, its arguments, and variables beside those that make them ranks. */
export interface Started {
  readonly size: number;
  readonly script: URL;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** For what the launcher of ranks leaves behind. */
  readonly folder: string;
}

/** A rank as a process, not yet started. */
export function rankOf({ size, script, args, env, folder }: Started, index: number): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", script.pathname, ...args],
    env: {
      ...{ TITAN_LIB: library().path, OMP_WAIT_POLICY: "passive", [LAUNCHED]: folder },
      ...variablesOf({ nproc: size }, index, "a token of this test"),
      ...env,
    },
    stdout: "piped",
    stderr: "piped",
  });
}

/** What each rank of a script says in a line of JSON, by rank; all of them must end well. */
export async function resultsOf(
  size: number,
  script: URL,
  args: readonly string[],
  env: Readonly<Record<string, string>> | ((rank: number) => Readonly<Record<string, string>>) = {},
): Promise<readonly Record<string, unknown>[]> {
  const folder = await Deno.makeTempDir();
  try {
    const outputs = await Promise.all(Array.from({ length: size }, (_, index) => {
      const own = typeof env === "function" ? env(index) : env;
      return rankOf({ size, script, args, env: own, folder }, index).output();
    }));
    return outputs.map(resultOf);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** What a rank that has ended well said. */
export function resultOf({ code, stdout, stderr }: Deno.CommandOutput): Record<string, unknown> {
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout).split("\n").find((line) => line.startsWith("{"))!);
}

/** A test that needs Gloo. */
export function testGloo(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, ignore: lacking, fn });
}
