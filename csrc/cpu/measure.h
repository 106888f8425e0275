// What a CPU can do: the yardsticks that a run's header shows and that benchmarks and profiles divide by.
#pragma once
#include "../backend.h"
#include "../titan.h"

namespace titan::cpu {

/// GFLOP/s of an n x n x n product with an f32 result through the backend's gemm kernel, or GB/s that y += x reads and writes on two f32 arrays of n
/// through its accumulate kernel; the best of a few. On the thread that calls and its team.
double measure(const Backend& backend, titan_measure measure, int64_t n, int threads);

}  // namespace titan::cpu
