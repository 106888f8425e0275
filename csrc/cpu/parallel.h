// How a kernel deals work to its threads: the only place that knows who they are, OpenMP's or, in a build without it, those of pool.h.
// A region ends when all its threads are done. Regions do not nest: one that is opened inside another has the calling thread alone.
#pragma once
#include <atomic>
#include <cstdint>
#ifdef _OPENMP
#include <omp.h>
#else
#include "pool.h"
#endif

namespace titan::cpu::inline TITAN_LEVEL {

/// Elements that a thread has done by the time that another has begun.
constexpr int64_t SMALL_WORK = 1 << 14;

#ifdef _OPENMP

inline bool in_parallel() { return omp_in_parallel(); }
/// Inside on_each_thread: waits for all of them.
inline void barrier() {
#pragma omp barrier
}

/// f(thread, threads) from each of so many threads.
template <class F>
inline void on_each_thread(int threads, F f) {
#pragma omp parallel num_threads(threads)
  f(omp_get_thread_num(), omp_get_num_threads());
}

/// f(i) for every i below n, in one piece for each of so many threads.
template <class F>
inline void for_each(int64_t n, int threads, F f) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n; i++) f(i);
}

/// f(i, thread) for every i below n: the next one for the thread that is free first.
template <class F>
inline void for_each_in_turn(int64_t n, int threads, F f) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t i = 0; i < n; i++) f(i, omp_get_thread_num());
}

#else

inline bool in_parallel() { return in_region(); }
inline void barrier() { wait_for_region(); }

template <class F>
inline void on_each_thread(int threads, F f) {
  run_region(threads, [](void* work, int thread, int count) { (*static_cast<F*>(work))(thread, count); }, &f);
}

template <class F>
inline void for_each(int64_t n, int threads, F f) {
  on_each_thread(threads, [&](int thread, int count) {
    const int64_t each = n / count, more = n % count;  // the first ones have one more
    const int64_t first = thread * each + (thread < more ? thread : more), end = first + each + (thread < more);
    for (int64_t i = first; i < end; i++) f(i);
  });
}

template <class F>
inline void for_each_in_turn(int64_t n, int threads, F f) {
  std::atomic<int64_t> next{0};
  on_each_thread(threads, [&](int thread, int) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) f(i, thread);
  });
}

#endif

/// f(i) for every i below n, each of some elements: from so many threads, or from the calling one where that is sooner done.
template <class F>
inline void for_each_of(int64_t n, int64_t elements, int threads, F f) {
  if (threads == 1 || n == 1 || n * elements <= SMALL_WORK) {  // not by an if clause: OpenMP would allocate a team of one
    for (int64_t i = 0; i < n; i++) f(i);
    return;
  }
  for_each(n, threads, f);
}

}  // namespace titan::cpu::inline TITAN_LEVEL
