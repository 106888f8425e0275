// Products on tensor cores by one warp: sums [16, 8] of f32 += a [16, 16] b [16, 8] of bf16, how a and b get from shared memory into registers, and how
// they get there from global memory while products are made. PTX for nvcc (sm_80 and later); in the emulator, host/mma.cpp plays the same.
//
// What lane `l` holds, with g = l / 4 and t = l % 4 (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type"); a register has two
// neighbours along the summed index, the first one in its lower half:
//   a     rows g and g + 8 (registers 0 and 1) of columns 2t and 2t + 1, then the same rows (2 and 3) of columns 2t + 8 and 2t + 9
//   b     column g of rows 2t and 2t + 1 (register 0), and of rows 2t + 8 and 2t + 9 (1)
//   sums  row g of columns 2t and 2t + 1 (0 and 1), and row g + 8 of the same (2 and 3)
// So two neighbouring blocks of sums, rounded, are an a of the next product: see `pack`.
#pragma once
#include "launch.h"
#ifdef __CUDACC__
#define TITAN_UNROLL _Pragma("unroll")
#define TITAN_NO_UNROLL _Pragma("unroll 1")
#else
#include "host/mma.h"
#define TITAN_UNROLL
#define TITAN_NO_UNROLL
#endif

namespace titan::cuda {

using Sums = float[4];
using Fragment = uint32_t[4];  // an a, or the b's of two neighbouring blocks of columns

/// sums += a b. All 32 lanes of a warp take part.
__device__ inline void multiply_add(Sums& sums, const Fragment& a, uint32_t b0, uint32_t b1, [[maybe_unused]] const char* file = __builtin_FILE(), [[maybe_unused]] int line = __builtin_LINE()) {
#ifdef __CUDACC__
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  host::multiply_add(sums, a, b0, b1, file, line);
#endif
}

/// Four matrices of 8 x 8 from shared memory: lane l names row l % 8 of matrix l / 8, whose 16 bytes begin at a multiple of 16. A lane gets, of each
/// matrix, columns 2t and 2t + 1 of row g; `transposed`: rows 2t and 2t + 1 of column g.
template <bool transposed = false>
__device__ void load_matrices(Fragment& to, const bf16* row, [[maybe_unused]] const char* file = __builtin_FILE(), [[maybe_unused]] int line = __builtin_LINE()) {
#ifdef __CUDACC__
  const auto at = uint32_t(__cvta_generic_to_shared(row));
  if constexpr (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
#else
  host::load_matrices(to, row, transposed, file, line);
#endif
}

/// Starts to copy 16 bytes from global to shared memory, both at multiples of 16; zeros where not `valid`, and `from` is then not read. Until its thread
/// has waited for it, nobody reads or writes there; behind the wait its thread does, and others do behind a barrier that follows.
__device__ inline void cp_async16(void* to, const void* from, bool valid) {
#ifdef __CUDACC__
  const auto at = uint32_t(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" : : "r"(at), "l"(__cvta_generic_to_global(from)), "r"(valid ? 16 : 0) : "memory");
#else
  host::start_copy(to, from, valid);
#endif
}
/// The thread's copies since the last call are a group, which may be empty.
__device__ inline void cp_async_commit() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;" : : : "memory");
#else
  host::commit_copies();
#endif
}
/// Waits for the thread's groups but the last N.
template <int N>
__device__ void cp_async_wait() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;" : : "n"(N) : "memory");
#else
  host::wait_for_copies(N);
#endif
}

/// Two numbers, rounded, in a register.
__device__ inline uint32_t pack(float first, float second) {
#if defined(__CUDA_ARCH__)
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
  return both;
#else
  return bf16(first).bits | uint32_t{bf16(second).bits} << 16;
#endif
}

/// Rows of bf16 in shared memory for load_matrices. Words of 16 bytes change places by the number of their row: word w of row r lies at w ^ r % 8. So eight
/// rows have what they have in one column in different banks, as do eight neighbouring words of a row, and nothing lies between rows.
template <int COLUMNS>
struct SharedRows {
  static_assert(COLUMNS % 64 == 0);
  static constexpr int BYTES = COLUMNS * int(sizeof(bf16));  // of a row
  bf16* data;
  __device__ SharedRows(void* data) : data(static_cast<bf16*>(data)) {}
  /// Words keep their group of eight, so that a column known to the compiler is an offset but for four places in its group.
  __device__ bf16* at(int row, int column) const { return data + row * COLUMNS + (column & ~63) + ((column & 63) ^ (row & 7) * 8); }
  /// The rows after `rows` of these, a multiple of 8.
  __device__ SharedRows operator+(int rows) const { return data + rows * COLUMNS; }

  /// The a that begins at [row, column]; the column is a multiple of 8.
  __device__ void load_a(Fragment& to, int row, int column) const {
    const unsigned lane = threadIdx.x % 32;
    load_matrices(to, at(row + int(lane % 16), column + int(lane / 16 * 8)));
  }
  /// The same where rows of a are columns here, and its columns rows.
  __device__ void load_a_of_columns(Fragment& to, int row, int column) const {
    const unsigned lane = threadIdx.x % 32;
    load_matrices<true>(to, at(column + int(lane % 8 + lane / 16 * 8), row + int(lane / 8 % 2 * 8)));
  }
  /// The b's of 16 columns, which are rows here from `row` on, for a summed index that is the column here, from `column` on.
  __device__ void load_b_of_rows(Fragment& to, int row, int column) const {
    const unsigned lane = threadIdx.x % 32;
    load_matrices(to, at(row + int(lane % 8 + lane / 16 * 8), column + int(lane / 8 % 2 * 8)));
  }
  /// The b's of 16 columns from `column` on, for a summed index that is the row, from `row` on.
  __device__ void load_b(Fragment& to, int row, int column) const {
    const unsigned lane = threadIdx.x % 32;
    load_matrices<true>(to, at(row + int(lane % 16), column + int(lane / 16 * 8)));
  }
};

}  // namespace titan::cuda
