/** GPUs by name, as NVIDIA's data sheets tell them, for plans that are made without one.
 * @module */

/** What a plan needs to know of a GPU. */
export interface Gpu {
  /** As its maker calls it. */
  readonly title: string;
  /** What is in the name that CUDA tells of it. */
  readonly named: RegExp;
  /** What kernels are compiled for, to run on it. */
  readonly level: string;
  /** Bytes of its memory. */
  readonly memory: number;
  /** Most FLOP a second by the type that products take: bf16 and TF32 on tensor cores with f32 sums, without sparsity; f32 and f64 on plain ones. */
  readonly flops: Readonly<Record<"bf16" | "tf32" | "f32" | "f64", number>>;
  /** Bytes a second of its memory. */
  readonly bandwidth: number;
}

const gpu = (
  title: string,
  named: RegExp,
  level: string,
  gigabytes: number,
  [bf16, f32, f64]: readonly number[],
  gigabytesPerSecond: number,
): Gpu => ({
  title,
  named,
  level,
  memory: gigabytes * 1e9,
  flops: { bf16: bf16 * 1e12, tf32: bf16 / 2 * 1e12, f32: f32 * 1e12, f64: f64 * 1e12 },
  bandwidth: gigabytesPerSecond * 1e9,
});

/** Sheets give rates of tensor cores with sparsity, which is twice what dense products reach: here are the halves, in whole TFLOP a second,
 * as torchtitan has them for its MFU. */
export const gpus: Readonly<Record<string, Gpu>> = {
  // NVIDIA A100 Tensor Core GPU, data sheet of June 2021.
  "a100-40gb": gpu("NVIDIA A100 40GB SXM", /\bA100-SXM4-40GB\b/, "sm_80", 40, [312, 19.5, 9.7], 1555),
  a100: gpu("NVIDIA A100 80GB SXM", /\bA100\b/, "sm_80", 80, [312, 19.5, 9.7], 2039),
  // NVIDIA H100 Tensor Core GPU, data sheets of 2022 (PCIe) and 2024.
  "h100-nvl": gpu("NVIDIA H100 NVL", /\bH100 NVL\b/, "sm_90", 94, [835, 60, 30], 3900),
  "h100-pcie": gpu("NVIDIA H100 PCIe", /\bH100 PCIe\b/, "sm_90", 80, [756, 51, 26], 2000),
  h100: gpu("NVIDIA H100 SXM", /\bH100\b/, "sm_90", 80, [989, 67, 34], 3350),
  // NVIDIA H200 Tensor Core GPU, data sheet of 2024.
  "h200-nvl": gpu("NVIDIA H200 NVL", /\bH200 NVL\b/, "sm_90", 141, [835, 60, 30], 4800),
  h200: gpu("NVIDIA H200 SXM", /\bG?H200\b/, "sm_90", 141, [989, 67, 34], 4800),
  // NVIDIA H20 Tensor Core GPU, specifications of 2024.
  h20: gpu("NVIDIA H20", /\bH20\b/, "sm_90", 96, [148, 44, 1], 4000),
  // NVIDIA Blackwell, data sheets of 2025: one of eight GPUs of an HGX B200, one of 72 of a GB200 NVL72.
  b200: gpu("NVIDIA B200", /\bB200\b/, "sm_100", 180, [2250, 75, 37], 7700),
  gb200: gpu("NVIDIA GB200", /\bGB200\b/, "sm_100", 186, [2500, 80, 40], 8000),
  // NVIDIA L40S, data sheet of 2023.
  l40s: gpu("NVIDIA L40S", /\bL40S\b/, "sm_89", 48, [362, 91.6, 1.4], 864),
};

/** The GPU of a name that CUDA tells, such as `NVIDIA H100 80GB HBM3`: the first that is in it. Undefined: its peak is not known here, as that of
 * a part of a GPU (`NVIDIA H100 80GB HBM3 MIG 1g.10gb`). */
export const gpuNamed = (name: string): Gpu | undefined =>
  /\bMIG\b/.test(name) ? undefined : Object.values(gpus).find(({ named }) => named.test(name));

/** What a step multiplies in. */
interface Multiplied {
  readonly dtype: keyof Gpu["flops"];
  readonly precision?: { readonly param?: "f32" | "bf16"; readonly tf32?: boolean };
}

const typeOf = ({ dtype, precision: { param = "f32", tf32 = false } = {} }: Multiplied): keyof Gpu["flops"] =>
  dtype !== "f32" ? dtype : tf32 && param === "f32" ? "tf32" : param;

/** FLOP a second of what a step multiplies in, by the GPU's data sheet; undefined for a CPU, and for a GPU whose sheet is not known here. */
export function publishedPeak(
  { kind, processor }: { readonly kind: string; readonly processor: string },
  step: Multiplied,
): number | undefined {
  return kind === "cuda" ? gpuNamed(processor)?.flops[typeOf(step)] : undefined;
}

/** The same of a GPU by its name here; undefined without one. */
export const peakOf = (gpu: string | undefined, step: Multiplied): number | undefined =>
  gpu === undefined ? undefined : gpus[gpu].flops[typeOf(step)];

/** A GPU in words; undefined for a CPU. */
export function gpuText(
  device: Readonly<Record<"kind" | "processor" | "level" | "threadsText", string>>,
): string | undefined {
  return device.kind === "cuda" ? `${device.processor} (${device.level}), ${device.threadsText}` : undefined;
}

/** What part of its data sheet's peak a GPU reaches, behind a comma; nothing where that is not known. */
export function ofPeakText(
  device: { readonly kind: string; readonly processor: string },
  gigaflops: number,
  param: "f32" | "bf16",
): string {
  const peak = publishedPeak(device, { dtype: "f32", precision: { param } });
  return peak ? `, ${(100e9 * gigaflops / peak).toFixed(0)}% of the published ${(peak / 1e12).toFixed(0)} TFLOP/s` : "";
}

/** The flags of a plan with memory and bandwidth of the GPU that they name, where they give no others. */
export function withSheet<P extends { gpu?: string; deviceMemory?: number; deviceBandwidth?: number }>(plan: P): P {
  if (plan.gpu === undefined) return plan;
  const { memory: deviceMemory, bandwidth: deviceBandwidth } = gpus[plan.gpu];
  return { deviceMemory, deviceBandwidth, ...plan };
}

/** A GPU as its device would describe itself, were it here. */
export function infoOf(gpu: string) {
  const { title: processor, level } = gpus[gpu], kind = "cuda" as const;
  return { kind, processor, level, threads: 1, threadsText: "", vectorBits: 0, levelIsForced: false, product: "" };
}
