/** Starting ranks as processes of this machine without MPI: they meet at the store of rank 0, and exchange over Gloo. They may be part of a
 * job that several machines share, each of which starts its own.
 * @module */
import type { HostPart } from "./hosts.ts";
import type { Job } from "./job.ts";
import { LAUNCHED, LaunchError } from "./world.ts";

/** Runs a rank with its output in files. */
const START = 'exec "$@" >"$0/$TITAN_RANK_FILE.out" 2>"$0/$TITAN_RANK_FILE.err"';

/** The ranks of a job that this machine starts. */
export interface Share {
  /** Number of ranks here. */
  readonly nproc: number;
  /** This machine among those of the job; it has all ranks unless given. */
  readonly part?: HostPart;
}

/** What a rank finds in its environment, as torchrun would set it.
 * @param index of the rank among those of this machine. */
export function variablesOf({ nproc, part }: Share, index: number, token: string): Record<string, string> {
  return {
    RANK: `${(part?.firstRank ?? 0) + index}`,
    WORLD_SIZE: `${part?.size ?? nproc}`,
    LOCAL_RANK: `${index}`,
    LOCAL_WORLD_SIZE: `${nproc}`,
    MASTER_ADDR: part?.master ?? "127.0.0.1",
    MASTER_PORT: `${part?.port ?? 0}`, // 0: any that is free, which rank 0 writes into the launcher's folder
    TITAN_ADDRESS: part?.own ?? "",
    TITAN_TOKEN: token,
  };
}

/** Starts them. Each one's end is a line of `ends` in the folder, as the shells around ranks of mpirun write it. */
export function startProcesses(
  share: Share,
  program: readonly string[],
  folder: string,
  env: Readonly<Record<string, string>>,
): Job {
  const { nproc, part } = share, token = part?.token ?? crypto.randomUUID() + crypto.randomUUID();
  const children = Array.from({ length: nproc }, (_, index) => start(index));
  const running = new Set(children);
  const status = Promise.all(children.map(async (child, index) => {
    const { code } = await child.status;
    running.delete(child);
    Deno.writeTextFileSync(`${folder}/ends`, `${index} ${code}\n`, { append: true });
    return code;
  }));
  const controls = children.map((child) => child.stdin.getWriter()); // each rank ends when its input does
  return {
    code: status.then((codes) => codes.find((code) => code !== 0) ?? 0),
    said: Promise.resolve(""),
    name: "a rank",
    endsAll: false,
    tell: (line) => void controls[0].write(new TextEncoder().encode(`${line}\n`)).catch(() => {}), // it has ended meanwhile
    kill: () => running.forEach((child) => child.kill("SIGKILL")), // nothing of theirs has to be put away
    close: async () => void await Promise.all(controls.map((control) => control.close().catch(() => {}))),
  };

  function start(index: number): Deno.ChildProcess {
    const variables = { ...env, ...variablesOf(share, index, token), [LAUNCHED]: folder, TITAN_RANK_FILE: `${index}` };
    try {
      return new Deno.Command("sh", {
        args: ["-c", START, folder, ...program],
        env: variables,
        stdin: "piped",
        stdout: "null",
        stderr: "null",
        detached: true, // Ctrl-C is for this process alone, which passes it on
      }).spawn();
    } catch (error) {
      if (!(error instanceof Deno.errors.NotCapable)) throw error;
      throw new LaunchError("Cannot start ranks: this process may not run sh", "--allow-run=sh", "add that flag");
    }
  }
}
