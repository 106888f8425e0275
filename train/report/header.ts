/** What a run says before it starts: the lines of its header. Its whole plan is in `plan_report.ts`.
 * @module */
import type { CommInfo } from "../../ffi/comm.ts";
import type { DeviceInfo } from "../../ffi/device.ts";
import { gpuText, ofPeakText } from "../../graph/target/cuda/gpus.ts";
import { isCopy } from "../../graph/passes/materialize.ts";
import { scopeText } from "../../graph/print.ts";
import type { TrainableModel } from "../../model/loss.ts";
import { numParameters } from "../../model/module.ts";
import { degreesText, type Mesh } from "../../parallel/mesh.ts";
import type { Compiled } from "../compile.ts";

const count = (n: number): string => n.toLocaleString("en-US");

/** Device and native library in a line; a slower path that is taken says so. */
export function deviceText(device: DeviceInfo, gflops: number, dtype: "f32" | "bf16"): string {
  const level = `level ${device.level}${device.levelIsForced ? ", forced by TITAN_CPU" : ""}`;
  const threads = `${device.threads} thread${device.threads === 1 ? "" : "s"}`;
  const why = device.threadsText && ` (${device.threadsText})`;
  const what = gpuText(device) ?? `${device.processor}, ${threads}${why}, ${level} (${device.vectorBits}-bit vectors)`;
  const noGpu = device.noGpu ? `; no GPU, as ${device.noGpu}` : "";
  return `${what}, ${device.product}, ` +
    `${gflops.toFixed(0)} GFLOP/s in a matrix product (${dtype})${ofPeakText(device, gflops, dtype)}${noGpu}`;
}

/** Model and step in a line. */
export function modelText(model: TrainableModel, tokensPerStep: number, seqLen: number): string {
  const flops = model.flopsPerToken?.(seqLen);
  const perToken = flops === undefined ? "" : `, ${(flops / 1e6).toFixed(1)} MFLOP per token`;
  return `${count(numParameters(model))} parameters, ${count(tokensPerStep)} tokens per step${perToken}`;
}

/** The mesh and how its ranks exchange in a line: `8 = dp_shard 4 x tp 2, 8 of them on this host, by shared memory (Open MPI v5.0.7),
 * threads bound to processors 0-1`.
 * @param simulated the link that is imitated, or nothing. @param onGpus do the ranks' devices exchange by themselves? */
export function ranksText({ size, degrees }: Mesh, info: CommInfo, simulated = "", onGpus = false): string {
  const { hostSize, exchange, version, processors } = info;
  const by = onGpus ? `NCCL, in whose order sums are added (they meet by ${version})` : `${exchange} (${version})`;
  return `${size} = ${degreesText(degrees)}, ${hostSize} of them on this host, by ${by}` +
    `${processors ? `, ${processors}` : ""}${simulated ? `, as slow as over a link of ${simulated}` : ""}`;
}

/** Slower paths that a step takes, a line each; none where everything runs as it is meant to. */
export function slowPaths({ graphs }: Compiled): string[] {
  return graphs.flatMap(({ name, nodes, notices }) => {
    const copies = nodes.filter(isCopy);
    return [
      ...copies.slice(0, 1).map((n) =>
        `${name} copies ${count(copies.length)} values, since a kernel cannot follow their strides; first in ${
          scopeText(n)
        }`
      ),
      ...notices.map((notice) => `${name} ${notice}`),
    ];
  });
}
