/** Which device a run takes where its configuration leaves that open (`device.kind`): a GPU where one is found, else the CPU.
 * @module */
import { Device } from "../../ffi/device.ts";
import { TitanError } from "../../ffi/error.ts";
import { library, LibraryError } from "../../ffi/library.ts";
import type { DeviceConfig } from "../config/types.ts";

/** Puts `cpu` or `cuda` in the place of `auto`.
 * @returns why it is the CPU, where the module for GPUs is built, but finds none. */
export function chooseDevice(device: DeviceConfig): string | undefined {
  if (device.kind !== "auto") return undefined;
  try {
    new Device({ kind: "cuda" })[Symbol.dispose]();
    device.kind = "cuda";
  } catch (error) {
    const noLibrary = error instanceof LibraryError; // which is told where one is needed: some plans need none
    if (!noLibrary && !(error instanceof TitanError)) throw error;
    device.kind = "cpu";
    if (!noLibrary && isBuilt()) return `it runs on the CPU, as ${error.message.split("\n")[0]}`;
  }
  return undefined;
}

function isBuilt(): boolean {
  try {
    return Deno.statSync(library().path.replace(/[^/]*$/, "libtitan_cuda.so")).isFile;
  } catch {
    return false;
  }
}
