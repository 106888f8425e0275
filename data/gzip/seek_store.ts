/** Keeps the indexes of gzip files in a folder, one file each, under a name that follows from what it is the index of. @module */
import { createHash } from "node:crypto";
import { join } from "@std/path";
import { removeIfThere } from "../hub/cache.ts";
import { claim } from "../hub/room.ts";
import { isMissing, type ShardFile } from "../source.ts";
import type { SeekStore } from "./seek_index.ts";

/** The place for the index of one file.
 * @param folder that libtitan has for itself. @param key tells the file's content from any other. */
export function seekStore(folder: string, key: () => Promise<string>): SeekStore {
  const path = async () => join(folder, "seek", `${createHash("sha256").update(await key()).digest("hex")}.seek`);
  return {
    async read() {
      try {
        return await Deno.readFile(await path());
      } catch (error) {
        if (isMissing(error)) return undefined;
        throw error;
      }
    },
    async write(bytes) {
      const to = await path(), made = `${to}.${crypto.randomUUID()}.tmp`;
      try {
        await claim(folder);
        await Deno.mkdir(join(folder, "seek"), { recursive: true });
        await Deno.writeFile(made, bytes);
        await Deno.rename(made, to); // nobody sees half of it
      } catch {
        // A folder that cannot be written, or a full disk, is no reason to end a run: without an index it only begins later.
        await removeIfThere(made).catch(() => {});
      }
    },
  };
}

/** A file on this machine with a place for its index. */
export function withSeekStore(file: ShardFile, path: URL, folder: string): ShardFile {
  return {
    ...file,
    seek: seekStore(folder, async () => {
      const { size, mtime } = await Deno.stat(path);
      return `${path.href} ${size} ${mtime?.getTime()}`;
    }),
  };
}
