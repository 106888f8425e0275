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

/** What each rank of a script says in a line of JSON, by rank; all of them must end well. */
export async function resultsOf(
  size: number,
  script: URL,
  args: readonly string[],
  env: Readonly<Record<string, string>> | ((rank: number) => Readonly<Record<string, string>>) = {},
): Promise<readonly Record<string, unknown>[]> {
  const folder = await Deno.makeTempDir();
  try {
    const outputs = await Promise.all(Array.from({ length: size }, (_, index) =>
      new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--quiet", script.pathname, ...args],
        env: {
          ...{ TITAN_LIB: library().path, OMP_WAIT_POLICY: "passive", [LAUNCHED]: folder },
          ...variablesOf({ nproc: size }, index, "a token of this test"),
          ...(typeof env === "function" ? env(index) : env),
        },
      }).output()));
    return outputs.map(({ code, stdout, stderr }) => {
      assertEquals(code, 0, new TextDecoder().decode(stderr));
      return JSON.parse(new TextDecoder().decode(stdout).split("\n").find((line) => line.startsWith("{"))!);
    });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** A test that needs Gloo. */
export function testGloo(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, ignore: lacking, fn });
}
