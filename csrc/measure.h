// How fast a device multiplies matrices: the yardstick that setup prints and benchmarks divide by.
#pragma once
#include "executor.h"

namespace titan {

/// GFLOP/s of an n x n x n product in f32 through the device's own gemm kernel; the best of a few.
double measure_product(Device& device, int64_t n, int threads);

}  // namespace titan
