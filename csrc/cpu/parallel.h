// How a kernel deals work to its threads.
#pragma once
#include <cstdint>

namespace titan::cpu::inline TITAN_LEVEL {

/// Elements that a thread has done by the time that another has begun.
constexpr int64_t SMALL_WORK = 1 << 14;

/// f(i) for every i below n, each of some elements: from so many threads, or from the calling one where that is sooner done.
template <class F>
inline void for_each_of(int64_t n, int64_t elements, int threads, F f) {
  if (threads == 1 || n == 1 || n * elements <= SMALL_WORK) {  // not by an if clause: OpenMP would allocate a team of one
    for (int64_t i = 0; i < n; i++) f(i);
    return;
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n; i++) f(i);
}

}  // namespace titan::cpu::inline TITAN_LEVEL
