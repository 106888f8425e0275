/** What a run takes by itself, and says of it, where there is a GPU (or what emulates one, by TITAN_CUDA).
 * @module */
import { assertEquals, assertMatch } from "@std/assert";
import { Device } from "../../ffi/device.ts";
import { KIND } from "./native.ts";

const ignore = KIND !== "cuda";

Deno.test({ ignore, name: "where it is left open, a GPU is taken" }, () => {
  using device = new Device({ kind: "auto" });
  assertEquals([device.info.kind, device.info.noGpu], ["cuda", undefined]);
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
