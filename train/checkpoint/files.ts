/** Files that last: what is written is on the disk before its name is, so that a name means a whole file also after a loss of power.
 * @module */
import { createHash } from "node:crypto";
import { CHUNK_BYTES, type SavedFile } from "./manifest.ts";

/** Writes a text as a file that lasts.
 * @returns what a manifest says of it. */
export async function writeLasting(path: string, text: string): Promise<SavedFile> {
  using file = await Deno.open(path, { write: true, createNew: true });
  const bytes = new TextEncoder().encode(text), hashes: string[] = [];
  for (let at = 0; at === 0 || at < bytes.length; at += CHUNK_BYTES) {
    hashes.push(sha256(bytes.subarray(at, at + CHUNK_BYTES)));
  }
  await writeFully(file, bytes);
  await file.sync();
  return { bytes: bytes.length, sha256: hashes };
}

/** Waits until the disk has the names in a folder. */
export async function syncFolder(path: string): Promise<void> {
  using folder = await Deno.open(path);
  await folder.sync();
}

/** SHA-256 of bytes, in hex. */
export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** The same by a thread of the system's library, which has to copy the bytes. */
export async function digest(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

/** Writes all bytes where the file stands, on another thread. */
export async function writeFully(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
}

/** Writes all bytes where the file stands, on this thread. */
export function writeFullySync(file: { writeSync(bytes: Uint8Array): number }, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
}

/** Makes an empty folder; what an interrupted write has left there goes. */
export async function makeEmptyFolder(path: string): Promise<void> {
  await removeIfThere(path);
  await Deno.mkdir(path, { recursive: true });
}

/** Removes a file, or a folder with all that it holds. */
export async function removeIfThere(path: string): Promise<void> {
  try {
    await Deno.remove(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Is something of this name there? */
export function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}
