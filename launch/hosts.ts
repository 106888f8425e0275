/** A job that several machines share: the same command on each, with a list of all of them, such as `--hosts a:4,b:4`.
 * @module */
import { LaunchError, readable } from "./world.ts";

/** A machine of a job. */
export interface Host {
  /** Its name or address, at which the others reach it. */
  readonly name: string;
  /** Number of ranks there. */
  readonly ranks: number;
}

/** What one machine has to know of a job. */
export interface HostPart {
  /** Number of ranks here. */
  readonly nproc: number;
  /** Number of all ranks. */
  readonly size: number;
  /** The first rank here. */
  readonly firstRank: number;
  /** The host of rank 0. */
  readonly master: string;
  /** The port of its store. */
  readonly port: number;
  /** The address of this machine. */
  readonly own: string;
  /** The secret by which ranks know each other. */
  readonly token: string;
}

/** The port of the store where MASTER_PORT does not say another; torchrun's. */
const PORT = 29500;

/** `a:4,b:4,[fe80::1]:2` as a list; undefined where a text is none, or names a host twice. */
export function readHosts(text: string): Host[] | undefined {
  const hosts = text.split(",").map((part): Host | undefined => {
    const [, bracketed, plain, ranks = "1"] = /^(?:\[([0-9A-Fa-f:.%\w]+)\]|([\w.-]+))(?::([1-9]\d*))?$/.exec(part) ??
      [];
    const name = bracketed ?? plain;
    return name === undefined ? undefined : { name, ranks: Number(ranks) };
  });
  if (hosts.some((host) => !host)) return undefined;
  return new Set(hosts.map((host) => host!.name)).size === hosts.length ? hosts as Host[] : undefined;
}

/** What this machine has to know of a job.
 * @param asked the name of this machine in the list, where it is not to be found out.
 * @throws {LaunchError} where it is not in the list, or there is no token. */
export function partOf(hosts: readonly Host[], asked?: string, env = readable): HostPart {
  const names = hosts.map(({ name }) => name), own = asked ?? names.find(isOwn);
  if (own === undefined || !names.includes(own)) {
    const what = asked === undefined
      ? "None of --hosts is known to be this machine"
      : `--host ${asked} is none of --hosts`;
    throw new LaunchError(what, names.join(", "), `say which of them this machine is, such as --host ${names[0]}`);
  }
  const token = env.get("TITAN_TOKEN"), port = Number(env.get("MASTER_PORT") ?? PORT);
  if (!token) {
    throw new LaunchError(
      "Ranks on several hosts need a secret by which they know each other: the environment variable TITAN_TOKEN is not set",
      "the same text on all hosts, which nobody else knows",
      "make one (openssl rand -hex 16), and export TITAN_TOKEN to it on every host",
    );
  }
  if (!Number.isInteger(port) || port < 1 || port > 65535) {
    throw new LaunchError(`The environment variable MASTER_PORT is "${env.get("MASTER_PORT")}"`, "a port", "unset it");
  }
  const at = names.indexOf(own), sum = (list: readonly Host[]) => list.reduce((all, { ranks }) => all + ranks, 0);
  const firstRank = sum(hosts.slice(0, at));
  return { size: sum(hosts), firstRank, nproc: hosts[at].ranks, master: names[0], port, own, token };
}

/** Is that the name of this machine, or an address of it? */
function isOwn(name: string): boolean {
  if (Deno.permissions.querySync({ name: "sys", kind: "hostname" }).state === "granted") {
    const own = Deno.hostname();
    if (name === own || name === own.split(".")[0] || name.split(".")[0] === own) return true;
  }
  if (Deno.permissions.querySync({ name: "sys", kind: "networkInterfaces" }).state !== "granted") return false;
  return Deno.networkInterfaces().some(({ address }) => address === name);
}
