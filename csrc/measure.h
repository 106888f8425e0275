// What a device can do: the yardsticks that a run's header shows and that benchmarks and profiles divide by.
#pragma once
#include "executor.h"

namespace titan {

/// GFLOP/s of an n x n x n product in f32 through the device's own gemm kernel; the best of a few.
double measure_product(Device& device, int64_t n, int threads);
/// The same of bf16 operands with an f32 result.
double measure_product_bf16(Device& device, int64_t n, int threads);

/// GB/s that y += x reads and writes on two f32 arrays of n, through the device's own accumulate kernel; the best of a few.
double measure_bandwidth(Device& device, int64_t n, int threads);

}  // namespace titan
