/**
 * Where the hub is, who asks, and where its files are kept: the environment variables that Python's `huggingface_hub`
 * follows, read in the same way.
 * @module
 */
import { join } from "@std/path";
import { DataError } from "../error.ts";

/** The variables that {@linkcode hubSettings} reads. */
export const HUB_VARIABLES = [
  "HF_ENDPOINT",
  "HF_TOKEN",
  "HF_TOKEN_PATH",
  "HF_HOME",
  "HF_HUB_CACHE",
  "HF_HUB_OFFLINE",
  "XDG_CACHE_HOME",
  "HOME",
] as const;

/** How to reach the hub, and where its files are kept. */
export interface HubSettings {
  /** Its address, without a slash at the end. */
  readonly endpoint: string;
  /** Sent to the endpoint alone; undefined: nobody in particular asks. */
  readonly token: string | undefined;
  /** The folder of repositories, `models--ORG--NAME` and the like. */
  readonly cache: string;
  /** The folder that libtitan has for itself beside the cache. */
  readonly own: string;
  /** Whether the network must not be asked. */
  readonly offline: boolean;
}

/** A variable of {@linkcode HUB_VARIABLES}. */
export type HubVariable = typeof HUB_VARIABLES[number];

/** The folder that libtitan has for itself, where it can be told. */
export function ownFolder(): string | undefined {
  try {
    return hubSettings().own;
  } catch (error) {
    if (error instanceof DataError) return undefined;
    throw error;
  }
}

/** The settings of this process.
 * @param variable gives the value of an environment variable.
 * @throws {DataError} where they cannot be read, or say no folder. */
export function hubSettings(variable: (name: HubVariable) => string | undefined = ofProcess): HubSettings {
  const set = (name: HubVariable) => variable(name)?.trim() || undefined;
  const below = (folder: string | undefined, name: string) => folder === undefined ? undefined : join(folder, name);
  const home = set("HF_HOME") ?? below(set("XDG_CACHE_HOME") ?? below(set("HOME"), ".cache"), "huggingface");
  if (home === undefined) {
    throw new DataError({
      code: "bad_option",
      what: "Cannot tell where files of the hub are kept: neither HF_HOME nor HOME is set",
      expected: "a folder in HF_HOME",
      fix: "set it",
    });
  }
  return {
    endpoint: (set("HF_ENDPOINT") ?? "https://huggingface.co").replace(/\/+$/, ""),
    token: set("HF_TOKEN") ?? keptToken(set("HF_TOKEN_PATH") ?? join(home, "token")),
    cache: set("HF_HUB_CACHE") ?? join(home, "hub"),
    own: join(home, "libtitan"),
    offline: /^(1|on|yes|true)$/i.test(set("HF_HUB_OFFLINE") ?? ""),
  };
}

function ofProcess(name: HubVariable): string | undefined {
  try {
    return Deno.env.get(name);
  } catch (error) {
    throw new DataError({
      code: "unreadable",
      what: `Cannot read the environment variable ${name}: ${(error as Error).message}`,
      expected: "a process that may read what tells where the hub and its files are",
      fix: `run it with --allow-env=${HUB_VARIABLES.join(",")}`,
    }, { cause: error });
  }
}

/** What `hf auth login` has written. */
function keptToken(file: string): string | undefined {
  try {
    return Deno.readTextFileSync(file).trim() || undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw error;
  }
}
