/** Addresses of files on the hub, as `huggingface_hub` writes them: `hf://datasets/ORG/NAME@REVISION/PATH`. @module */
import { DataError } from "../error.ts";
import { type Repository, repository } from "./hub.ts";

/** What an address names. */
export interface HubAddress {
  readonly repository: Repository;
  /** A branch, a tag or a commit; default: `main`. */
  readonly revision: string;
  /** A file, a folder or a pattern below the repository; "": all of it. */
  readonly path: string;
}

/** Is it an address on the hub? */
export function isHubAddress(location: string): boolean {
  return location.startsWith("hf://");
}

/** Takes an address apart.
 * @throws {DataError} when it is none. */
export function parseAddress(address: string): HubAddress {
  const [, sort, name, revision, path] =
    /^hf:\/\/(datasets\/|models\/)?((?!datasets\/)[^/@]+\/[^/@]+)(?:@([^/]+))?(?:\/(.*))?$/.exec(address) ?? [];
  if (name !== undefined) {
    return {
      repository: repository(sort === "datasets/" ? "dataset" : "model", name),
      revision: decodeURIComponent(revision ?? "main"),
      path: (path ?? "").replace(/\/+$/, ""),
    };
  }
  throw new DataError({
    code: "bad_option",
    what: `${address} is no address on the hub`,
    expected: "hf://datasets/ORG/NAME, behind it @REVISION and /PATH where they matter",
    fix: "write it so, such as hf://datasets/allenai/c4/en",
  });
}

/** The address of a file, or of a repository where the path is "". */
export function showAddress({ repository: { kind, name }, revision, path }: HubAddress): string {
  const at = revision === "main" ? "" : `@${encodeURIComponent(revision)}`;
  return `hf://${kind === "dataset" ? "datasets/" : ""}${name}${at}${path === "" ? "" : `/${path}`}`;
}

/** Does a path fit one of the patterns? `*` stands for anything, folders too, `?` for one character: as in `huggingface_hub`. */
export function fitsAny(path: string, patterns: readonly string[]): boolean {
  return patterns.some((pattern) => {
    const source = (pattern.endsWith("/") ? `${pattern}*` : pattern).replace(/[.+^${}()|[\]\\]/g, "\\$&")
      .replaceAll("*", ".*").replaceAll("?", ".");
    return new RegExp(`^${source}$`, "su").test(path);
  });
}
