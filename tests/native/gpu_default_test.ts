/** What a run takes by itself, and says of it, where there is a GPU (or what emulates one, by TITAN_CUDA).
 * @module */
import { assertEquals, assertMatch } from "@std/assert";
import { Device } from "../../ffi/device.ts";
import { chooseDevice } from "../../train/command/choose_device.ts";
import { KIND } from "./native.ts";

const ignore = KIND !== "cuda";

Deno.test({ ignore, name: "a run whose configuration leaves it open takes the GPU" }, () => {
  assertEquals(chooseDevice("auto"), "cuda");
});

Deno.test({ ignore, name: "a GPU tells its memory, and clocks that are none of zero" }, () => {
  using device = new Device({ kind: "cuda" });
  assertMatch(
    device.info.threadsText,
    /^[\d.]+ GB at [1-9]\d* GB\/s, \d+ multiprocessors at (?!0\.00)\d+\.\d+ GHz(, (NVLink|PCIe) to \d+ more)?$/,
  );
  const { totalBytes, availableBytes } = device.memory();
  assertEquals(availableBytes > 0 && availableBytes <= totalBytes, true);
});
