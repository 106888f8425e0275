/** The target `cpu`: the kernels of `csrc/cpu/ops/`, and what is dear or cheap on a processor with vectors and caches. How each op is
 * run stands in `cpu/`, by theme.
 * @module */
import { kernels } from "../kernels.ts";
import { attention } from "./cpu/attention.ts";
import { collectives } from "./cpu/collectives.ts";
import { copies, copy } from "./cpu/copies.ts";
import { indices } from "./cpu/indices.ts";
import { maps } from "./cpu/maps.ts";
import { products } from "./cpu/products.ts";
import { rows } from "./cpu/rows.ts";
import { updates } from "./cpu/updates.ts";
import type { Target } from "./target.ts";

/** Processors. */
export const cpu: Target = {
  name: "cpu",
  kernels,
  lowerings: { ...attention, ...collectives, ...copies, ...indices, ...maps, ...products, ...rows, ...updates },
  copy: copy(),
  fusions: new Set([
    "castsIntoProducts", // a product rounds f32 operands while it packs them
    "ropeIntoAttention", // attention rotates a head while it loads it
    "residualNorms",
    "joinProducts",
    "accumulateInPlace",
    "castsIntoKernels", // kernels convert between bf16 and f32 as they load and store
    "joinUpdates",
    "fuseMaps",
  ]),
  mapSteps: 48, // registers of a longer program do not stay in cache
  // Few enough rows of logits for the cache, enough for a fast product. A chunk then holds 1/32 of the logits: per token of the batch
  // no more than one value of the residual stream where `vocab / 32 <= dim`.
  chunks: { rows: 512, chunks: 32 },
  alignment: 64, // one cache line, one AVX-512 vector
  page: 4096,
  // Two cores with AVX-512 are like this; the ratios are alike on other processors.
  costs: {
    flopsPerSecond: { matmul: 290e9, attention: 230e9, cheap: Infinity, collective: Infinity },
    bytesPerSecond: 30e9,
  },
};
