// Rows by index, seen from where they go: a block looks through all indices for those of its row, in their order. So sums need neither sorting nor
// atomics, and have the same bits each time.
#pragma once
#include "device.h"

namespace titan::cuda {

constexpr int MATCH_THREADS = 256, MATCH_PER_THREAD = 8, MATCH_COLUMNS = MATCH_THREADS * MATCH_PER_THREAD;

/// The place of the lowest bit.
__device__ inline int lowest(unsigned bits) {
#ifdef __CUDA_ARCH__
  return __ffs(int(bits)) - 1;
#else
  return __builtin_ctz(bits);
#endif
}

/// found(n) for every n below N that is_match(n), in their order, by all threads of a block of MATCH_THREADS.
template <class IsMatch, class Found>
__device__ void for_each_match(int64_t N, IsMatch is_match, Found found) {
  constexpr int WARPS = MATCH_THREADS / WARP, AT_ONCE = 4;  // places that a thread looks at between two barriers
  __shared__ unsigned votes[AT_ONCE * WARPS];
  for (int64_t first = 0; first < N; first += AT_ONCE * MATCH_THREADS) {
    unsigned own[AT_ONCE];
    for (int k = 0; k < AT_ONCE; k++) {
      const int64_t from = first + k * MATCH_THREADS, n = from + threadIdx.x;
      own[k] = from < N ? __ballot_sync(~0u, n < N && is_match(n)) : 0;
    }
    __syncthreads();  // the votes before have been read
    if (threadIdx.x % WARP == 0)
      for (int k = 0; k < AT_ONCE; k++) votes[k * WARPS + threadIdx.x / WARP] = own[k];
    __syncthreads();
    for (int warp = 0; warp < AT_ONCE * WARPS; warp++)
      for (unsigned rest = votes[warp]; rest; rest &= rest - 1) found(first + warp * WARP + lowest(rest));
  }
}

struct Or {
  __device__ unsigned operator()(unsigned a, unsigned b) const { return a | b; }
};
/// Which of the numbers 0 to WARP - 1 number(n) is for any n below N, as bits, in all threads of a block.
template <class Number>
__device__ unsigned numbers_found(int64_t N, Number number) {
  unsigned found = 0;
  for (int64_t n = threadIdx.x; n < N; n += blockDim.x) {
    const int64_t own = number(n);
    if (own >= 0 && own < WARP) found |= 1u << own;
  }
  return join_block(found, Or());
}

/// MATCH_COLUMNS columns of a row, from `first` on, in the registers of a block: neighbouring columns belong to neighbouring threads.
template <class real>
struct RowSum {
  Elements<real> to;
  int64_t first, D;
  real sums[MATCH_PER_THREAD];

  __device__ RowSum(const Elements<real>& to, int64_t first, int64_t D, bool adds) : to(to), first(first), D(D) {
    for (int k = 0; k < MATCH_PER_THREAD; k++) sums[k] = adds && column(k) < D ? to[column(k)] : real(0);
  }
  __device__ int64_t column(int k) const { return first + k * MATCH_THREADS + threadIdx.x; }
  __device__ void add(const Elements<real>& row) {
    for (int k = 0; k < MATCH_PER_THREAD; k++)
      if (column(k) < D) sums[k] += row[column(k)];
  }
  __device__ void store() const {
    for (int k = 0; k < MATCH_PER_THREAD; k++)
      if (column(k) < D) to.put(column(k), sums[k]);
  }
};

}  // namespace titan::cuda
