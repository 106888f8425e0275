/** The worker of the page: one choice comes in, its answer goes out piece by piece.
 * @module */
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />
import { answer, tomlOf } from "./answer.ts";

self.onmessage = async ({ data }: MessageEvent<readonly string[]>) => {
  const begun = performance.now();
  self.postMessage({ kind: "toml", ...tomlOf(data) });
  await answer(data, (piece) => self.postMessage({ ...piece, seconds: (performance.now() - begun) / 1000 }));
  self.postMessage({ kind: "done" });
};
