/** A disk that is soon full.
 * @module */

/** A file system of some KiB, or undefined where this process may not make one. */
export async function smallDisk(path: string, kib: number): Promise<AsyncDisposable | undefined> {
  const run = async (command: string, ...args: string[]) => {
    const { success } = await new Deno.Command(command, { args, stdout: "null", stderr: "null" }).output();
    return success;
  };
  try {
    if (!await run("mount", "-t", "tmpfs", "-o", `size=${kib}k`, "tmpfs", path)) return undefined;
  } catch {
    return undefined;
  }
  return { [Symbol.asyncDispose]: () => run("umount", path).then(() => {}) };
}
