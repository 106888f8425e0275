// The emulator's tensor cores: what ../mma.h asks of PTX, by the documented layout of fragments.
#pragma once
#include <cstdint>

namespace titan::cuda::host {

/// mma.m16n8k16 of bf16. NVIDIA does not say in which order products are summed, nor how sums are rounded in between: here in f32, one by one.
void multiply_add(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const char* file, int line);
/// ldmatrix.x4. Eight rows of a matrix take one access to shared memory where no two lie in the same banks.
void load_matrices(uint32_t (&to)[4], const void* row, bool transposed, const char* file, int line);
/// How many accesses more matrices have taken since this was last asked.
unsigned take_bank_conflicts();

/// cp.async of 16 bytes, its groups and its waits. Bytes arrive at the wait of the thread that started the copy, never before.
void start_copy(void* to, const void* from, bool valid);
void commit_copies();
void wait_for_copies(unsigned groups_under_way);

}  // namespace titan::cuda::host
