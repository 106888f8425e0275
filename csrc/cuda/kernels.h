// CUDA's kernels, declared from kernels.def: csrc/cuda/ops/<name or family>.cu, the twin of csrc/cpu/ops/, defines run_NAME for each.
#pragma once
#include <array>
#include <string>

#include "../backend.h"

namespace titan::cuda {

#define MAP(name, arity)
#define KERNEL(name, operands, attributes, dtypes) void run_##name(const Call& call);
#include "../kernels.def"
#undef KERNEL

constexpr int NUM_KERNELS = 0
#define KERNEL(name, operands, attributes, dtypes) +1
#include "../kernels.def"
#undef KERNEL
#undef MAP
    ;

/// The table in the order of kernels.def. What a call must be does not depend on the device: `twins`, the table of CPUs, has the checks.
std::array<Kernel, NUM_KERNELS> kernels(const Kernel* twins);
/// What calls of `map` prepare: a kernel from source.
uint64_t state_bytes_of_map(const Call& call);
void prepare_map(const Call& call, void* memory);

}  // namespace titan::cuda
