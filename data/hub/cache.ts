/**
 * Files of the hub on disk, in the layout of Python's `huggingface_hub`, which finds what libtitan has put there and the
 * other way round:
 *
 *     datasets--ORG--NAME/blobs/ETAG                  a content
 *     datasets--ORG--NAME/blobs/ETAG.incomplete       its beginning, from byte 0 on
 *     datasets--ORG--NAME/snapshots/COMMIT/PATH       a link to a content
 *     datasets--ORG--NAME/refs/REVISION               the commit that a branch or a tag meant
 *     .locks/datasets--ORG--NAME/ETAG.lock            locked by who brings that content
 *
 * Locks are the system's (flock): they end with the process that has them, however it ends.
 * @module
 */
import { basename, dirname, join } from "@std/path";
import { isMissing } from "../source.ts";
import { COMMIT, type HubFile, type Repository } from "./hub.ts";

/** A lock that is held. */
export type Lock = AsyncDisposable;

/** A folder of repositories. */
export class HubCache {
  readonly folder: string;

  /** The folder need not exist. */
  constructor(folder: string) {
    this.folder = folder;
  }

  /** The path of a file that is there whole, or undefined. */
  async find(repository: Repository, commit: string, path: string): Promise<string | undefined> {
    const link = this.snapshot(repository, commit, path);
    return await isFile(link) ? link : undefined;
  }

  /** What is known of a file that is there whole, or undefined. */
  async known(repository: Repository, commit: string, path: string): Promise<HubFile | undefined> {
    const link = this.snapshot(repository, commit, path);
    try {
      const { size } = await Deno.stat(link);
      return { repository, commit, path, size, etag: basename(await Deno.realPath(link)) };
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  /** The commit that a revision was known to mean, or undefined. */
  async commit(repository: Repository, revision: string): Promise<string | undefined> {
    if (COMMIT.test(revision)) return revision;
    try {
      const commit = (await Deno.readTextFile(join(this.#of(repository), "refs", revision))).trim();
      return COMMIT.test(commit) ? commit : undefined;
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  /** Keeps what a revision means. */
  async keepCommit(repository: Repository, revision: string, commit: string): Promise<void> {
    if (revision === commit || await this.commit(repository, revision) === commit) return;
    await replace(join(this.#of(repository), "refs", revision), (path) => Deno.writeTextFile(path, commit));
  }

  /** Where a content is, once it is whole. */
  blob({ repository, etag }: HubFile): string {
    return join(this.#of(repository), "blobs", etag);
  }

  /** Where the beginning of a content is. */
  incomplete(file: HubFile): string {
    return `${this.blob(file)}.incomplete`;
  }

  /** How many bytes of a content are there. */
  async reached(file: HubFile): Promise<number> {
    for (const path of [this.blob(file), this.incomplete(file)]) {
      try {
        return (await Deno.stat(path)).size;
      } catch (error) {
        if (!isMissing(error)) throw error;
      }
    }
    return 0;
  }

  /** Where a file is at a commit. */
  snapshot(repository: Repository, commit: string, path: string): string {
    return join(this.#of(repository), "snapshots", commit, ...path.split("/"));
  }

  /** Removes a content that is not known to be right; false where it is, as all that is whole. */
  async forget(file: HubFile): Promise<boolean> {
    if (await isFile(this.blob(file))) return false;
    await removeIfThere(this.incomplete(file));
    return true;
  }

  /** Has a file's name at its commit lead to its content, and gives that path. */
  async link(file: HubFile): Promise<string> {
    const { repository, commit, path, etag } = file, link = this.snapshot(repository, commit, path);
    const up = "../".repeat(path.split("/").length + 1);
    if (!await isFile(link)) await replace(link, (made) => Deno.symlink(`${up}blobs/${etag}`, made));
    return link;
  }

  /** Takes the lock of a content; undefined where another has it and `wait` is not set. */
  async lock(file: HubFile, { wait }: { readonly wait: boolean }): Promise<Lock | undefined> {
    const { repository, etag } = file;
    return await takeLock(join(this.folder, ".locks", nameOf(repository), `${etag}.lock`), { wait });
  }

  #of(repository: Repository): string {
    return join(this.folder, nameOf(repository));
  }
}

/** The folder's name of a repository. */
function nameOf({ kind, name }: Repository): string {
  return [`${kind}s`, ...name.split("/")].join("--");
}

/** Locks a file, which is made for that; undefined where another has it and `wait` is not set. */
export async function takeLock(path: string, { wait }: { readonly wait: boolean }): Promise<Lock | undefined> {
  await Deno.mkdir(dirname(path), { recursive: true });
  const file = await Deno.open(path, { create: true, read: true, write: true });
  try {
    // Asked again and again: a call that waits would occupy a thread, and could not be given up.
    while (!await file.tryLock(true)) {
      if (!wait) {
        file.close();
        return undefined;
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  } catch (error) {
    file.close();
    throw error;
  }
  return { [Symbol.asyncDispose]: () => Promise.resolve(file.close()) };
}

/** Whether there is a file, at the end of links too. */
export async function isFile(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isFile;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

/** Makes a file or a link beside `path` and puts it in its place, so that nobody sees half of it. */
export async function replace(path: string, make: (path: string) => Promise<void>): Promise<void> {
  await Deno.mkdir(dirname(path), { recursive: true });
  const made = `${path}.${crypto.randomUUID()}.tmp`;
  await make(made);
  await Deno.rename(made, path);
}

/** Removes a file, if there is one. */
export async function removeIfThere(path: string): Promise<void> {
  try {
    await Deno.remove(path);
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
}
