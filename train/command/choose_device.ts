/** Which device a run takes where that is left open (`device.kind`): a GPU where one is found, else the CPU.
 * @module */
import { Device } from "../../ffi/device.ts";
import { TitanError } from "../../ffi/error.ts";
import { library, LibraryError } from "../../ffi/library.ts";

/** The kind of device that takes the place of `auto`.
 * @param warnings is told why it is the CPU, where the module for GPUs is built, but finds none. */
export function chooseDevice(kind: "auto" | "cpu" | "cuda", warnings: string[] = []): "cpu" | "cuda" {
  if (kind !== "auto") return kind;
  try {
    new Device({ kind: "cuda" })[Symbol.dispose]();
    return "cuda";
  } catch (error) {
    if (error instanceof LibraryError) return "cpu"; // told where a library is needed: some plans need none
    if (!(error instanceof TitanError)) throw error;
    const beside = [...Deno.readDirSync(library().path.replace(/[^/]*$/, ""))];
    const isBuilt = beside.some(({ name }) => name === "libtitan_cuda.so");
    if (isBuilt) warnings.push(`it runs on the CPU, as ${error.message.split("\n")[0]}`);
    return "cpu";
  }
}
