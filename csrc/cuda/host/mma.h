// The emulator's tensor cores: what ../mma.h asks of PTX, by the documented layout of fragments.
#pragma once
#include <cstdint>

namespace titan::cuda::host {

/// mma.m16n8k16 of bf16. NVIDIA does not say in which order products are summed, nor how sums are rounded in between: here in f32, one by one.
void multiply_add(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const char* file, int line);
/// ldmatrix.x4.
void load_matrices(uint32_t (&to)[4], const void* row, bool transposed, const char* file, int line);

}  // namespace titan::cuda::host
