/**
 * Where the hub is, who asks, and where its files are kept: the environment variables that Python's `huggingface_hub`
 * follows, read in the same way.
 * @module
 */
import { join } from "@std/path";

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

/** The settings of this process.
 * @param variable gives the value of an environment variable. */
export function hubSettings(
  variable: (name: typeof HUB_VARIABLES[number]) => string | undefined = (name) => Deno.env.get(name),
): HubSettings {
  const set = (name: typeof HUB_VARIABLES[number]) => variable(name)?.trim() || undefined;
  const home = set("HF_HOME") ?? join(set("XDG_CACHE_HOME") ?? join(set("HOME") ?? ".", ".cache"), "huggingface");
  return {
    endpoint: (set("HF_ENDPOINT") ?? "https://huggingface.co").replace(/\/+$/, ""),
    token: set("HF_TOKEN") ?? keptToken(set("HF_TOKEN_PATH") ?? join(home, "token")),
    cache: set("HF_HUB_CACHE") ?? join(home, "hub"),
    own: join(home, "libtitan"),
    offline: /^(1|on|yes|true)$/i.test(set("HF_HUB_OFFLINE") ?? ""),
  };
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
