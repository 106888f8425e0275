/** The page of a run that goes on, and the command that shows runs later: `deno task view`.
 * @module */
import { onStop } from "../../launch/stop.ts";
import { ConfigError } from "../config/config.ts";
import { type LiveOptions, LiveServer } from "../report/live/live_server.ts";
import { enterWorkingFolder } from "./working_folder.ts";

/** Opens a page.
 * @throws {ConfigError} when its port is taken, or may not be listened on. */
export function openLive(options: LiveOptions, portKey: string): LiveServer {
  try {
    return LiveServer.open(options);
  } catch (error) {
    const isTaken = error instanceof Deno.errors.AddrInUse;
    if (!isTaken && !(error instanceof Deno.errors.NotCapable)) throw error;
    throw new ConfigError([{
      code: "port_in_use",
      what: `Cannot serve a page on port ${options.port} of this machine: ${(error as Error).message}`,
      expected: isTaken ? "a port that no other program has" : "a program that may listen",
      fix: isTaken
        ? `set ${portKey} to another, or to 0 for one that is free`
        : "start Deno with --allow-net=127.0.0.1",
    }]);
  }
}

const USAGE = `Usage: npx -y deno task view [--port N] [PATH ...]

Shows runs on a page, those that go on too: all metrics.jsonl in the folders PATH and below, or in such files; without one, in outputs.
The page is for this machine alone; its address, which is printed, has a word that others do not know.`;

/** Serves the page until Ctrl-C. Returns the exit code.
 * @param until ends it, for tests; by default a signal does. */
export async function view(args: readonly string[], until: () => Promise<unknown> = stopped): Promise<number> {
  const paths: string[] = [];
  let port = 0;
  for (let i = 0; i < args.length; i++) {
    const [flag, value = args[i + 1]] = args[i].split("=");
    if (flag === "--help") {
      console.log(USAGE);
      return 0;
    } else if (flag === "--port" && /^\d{1,5}$/.test(value ?? "") && Number(value) < 65_536) {
      port = Number(value);
      if (!args[i].includes("=")) i++;
    } else if (flag.startsWith("-")) {
      console.error(`error: view knows no ${args[i]}\n${USAGE}`);
      return 1;
    } else paths.push(args[i]);
  }
  enterWorkingFolder();
  if (paths.length === 0) paths.push("outputs");
  const missing = paths.find((path) => !exists(path));
  if (missing !== undefined) {
    console.error(
      `error: There is no ${missing}\n  expected: the dump folder of a run, or its metrics.jsonl\n  fix: name one, or train first`,
    );
    return 1;
  }
  try {
    await using server = openLive({ paths, port }, "--port");
    console.log(`${server.address}\nCtrl-C ends the page.`);
    await until();
    return 0;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    console.error(`error: ${error.message}`);
    return 1;
  }
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

function stopped(): Promise<unknown> {
  const { promise, resolve } = Promise.withResolvers<unknown>();
  onStop(resolve);
  return promise;
}

if (import.meta.main) Deno.exit(await view(Deno.args));
