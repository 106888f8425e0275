/** GPUs by name, as NVIDIA's data sheets tell them, for plans that are made without one.
 * @module */

/** What a plan needs to know of a GPU. */
export interface Gpu {
  /** As its maker calls it. */
  readonly title: string;
  /** What kernels are compiled for, to run on it. */
  readonly level: string;
  /** Bytes of its memory. */
  readonly memory: number;
  /** Most FLOP a second by the type that products take: bf16 on tensor cores with f32 sums, without sparsity; f32 and f64 on plain ones. */
  readonly flops: Readonly<Record<"bf16" | "f32" | "f64", number>>;
  /** Bytes a second of its memory. */
  readonly bandwidth: number;
}

const gpu = (
  title: string,
  level: string,
  gigabytes: number,
  [bf16, f32, f64]: readonly number[],
  gigabytesPerSecond: number,
): Gpu => ({
  title,
  level,
  memory: gigabytes * 1e9,
  flops: { bf16: bf16 * 1e12, f32: f32 * 1e12, f64: f64 * 1e12 },
  bandwidth: gigabytesPerSecond * 1e9,
});

/** Sheets give rates of tensor cores with sparsity, which is twice what dense products reach: here are the halves. */
export const gpus: Readonly<Record<string, Gpu>> = {
  // NVIDIA A100 Tensor Core GPU, data sheet of June 2021.
  "a100-40gb": gpu("NVIDIA A100 40GB SXM", "sm_80", 40, [312, 19.5, 9.7], 1555),
  a100: gpu("NVIDIA A100 80GB SXM", "sm_80", 80, [312, 19.5, 9.7], 2039),
  // NVIDIA H100 Tensor Core GPU, data sheet of 2024.
  h100: gpu("NVIDIA H100 SXM", "sm_90", 80, [989.5, 67, 34], 3350),
  "h100-nvl": gpu("NVIDIA H100 NVL", "sm_90", 94, [835.5, 60, 30], 3900),
  // NVIDIA H200 Tensor Core GPU, data sheet of 2024.
  h200: gpu("NVIDIA H200 SXM", "sm_90", 141, [989.5, 67, 34], 4800),
  // NVIDIA L40S, data sheet of 2023.
  l40s: gpu("NVIDIA L40S", "sm_89", 48, [362.05, 91.6, 1.4], 864),
};
