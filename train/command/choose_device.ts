/** Which device a run takes where its configuration leaves that open (`device.kind`): a GPU where one is found, else the CPU.
 * @module */
import { Device } from "../../ffi/device.ts";
import { TitanError } from "../../ffi/error.ts";
import { library, LibraryError } from "../../ffi/library.ts";
import type { DeviceConfig } from "../config/types.ts";

/** Puts `cpu` or `cuda` in the place of `auto`. Where the module for GPUs is built, but finds none, a line says why the CPU is taken. */
export function chooseDevice(device: DeviceConfig): void {
  if (device.kind !== "auto") return;
  try {
    new Device({ kind: "cuda" })[Symbol.dispose]();
    device.kind = "cuda";
  } catch (error) {
    const noLibrary = error instanceof LibraryError; // which is told where one is needed: some plans need none
    if (!noLibrary && !(error instanceof TitanError)) throw error;
    device.kind = "cpu";
    if (!noLibrary && isBuilt()) console.log(`on the CPU, as ${error.message.split("\n")[0]}`);
  }
}

function isBuilt(): boolean {
  try {
    return Deno.statSync(library().path.replace(/[^/]*$/, "libtitan_cuda.so")).isFile;
  } catch {
    return false;
  }
}
