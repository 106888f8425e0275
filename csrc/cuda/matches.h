// Rows by index, seen from where they go: a block looks through all indices for those of its row, in their order. So sums need neither sorting nor
// atomics, and have the same bits each time.
#pragma once
#include "device.h"

namespace titan::cuda {

constexpr int MATCH_THREADS = 128, MATCH_PER_THREAD = 8, MATCH_COLUMNS = MATCH_THREADS * MATCH_PER_THREAD;

/// found(n) for every n below N that is_match(n), in their order, by all threads of a block of MATCH_THREADS. Was there any?
template <class IsMatch, class Found>
__device__ bool for_each_match(int64_t N, IsMatch is_match, Found found) {
  constexpr int WARPS = MATCH_THREADS / WARP;
  __shared__ unsigned votes[WARPS];
  bool any = false;
  for (int64_t first = 0; first < N; first += MATCH_THREADS) {
    const int64_t n = first + threadIdx.x;
    const unsigned vote = __ballot_sync(~0u, n < N && is_match(n));
    __syncthreads();  // the votes before have been read
    if (threadIdx.x % WARP == 0) votes[threadIdx.x / WARP] = vote;
    __syncthreads();
    for (int warp = 0; warp < WARPS; warp++)
      for (unsigned rest = votes[warp]; rest; rest &= rest - 1) {
        int lane = 0;
        while (!(rest >> lane & 1)) lane++;
        found(first + warp * WARP + lane);
        any = true;
      }
  }
  return any;
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
