#include "team.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <thread>
#include <utility>

#include "../limits.h"
#include "parallel.h"

namespace titan::cpu {

#ifdef __linux__
void Team::bind(const std::vector<Core>& cores) {
  static std::atomic<uint64_t> bindings{0};
  sets_.resize(cores.size());
  for (size_t i = 0; i < cores.size(); i++) {
    CPU_ZERO(&sets_[i]);
    for (const int processor : cores[i]) CPU_SET(processor, &sets_[i]);
  }
  binding_ = ++bindings;
}
#else
void Team::bind(const std::vector<Core>&) {}
#endif

void Team::use(int threads) const {
#ifdef _OPENMP
  omp_set_dynamic(0);
  omp_set_num_threads(threads);
#else
  on_each_thread(threads, [](int, int) {});  // where the system refuses a thread, it is here
#endif
#ifdef __linux__
  if (sets_.empty()) return;
  // A team that was smaller for a while has ended threads, and makes others, which begin where this thread is.
  on_each_thread(threads, [&](int thread, int) {
    thread_local uint64_t binding = 0;
    const cpu_set_t& set = sets_[static_cast<size_t>(thread) % sets_.size()];
    if (std::exchange(binding, binding_) != binding_) sched_setaffinity(0, sizeof set, &set);
  });
#endif
}

Threads threads_here(const Sharing& sharing) {
  const char* wanted = std::getenv("OMP_NUM_THREADS");
  if (wanted && std::atoi(wanted) > 0) return {std::atoi(wanted), "OMP_NUM_THREADS"};
  const auto cores = cores_of_host(), usable = usable_cores(own_processors(0), cores);
  // Where the system does not say which processors a process may use, the C++ library may know their number.
  if (usable.empty()) return {std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / std::max(1, sharing.processes)), ""};
  return threads_for(usable, cores, cpu_quota(), sharing);
}

}  // namespace titan::cpu
