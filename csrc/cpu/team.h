// The threads of a CPU's executor, OpenMP's or those of pool.h: how many, and on which processors they run.
#pragma once
#ifdef __linux__
#include <sched.h>
#endif
#include <vector>

#include "../processors.h"

namespace titan::cpu {

/// All calls come from the executor's thread, which is the first of the team.
class Team {
 public:
  explicit Team(int threads) : threads_(threads) {}
  int threads() const { return threads_; }
  /// From now on each thread runs on one of these cores, in turn; none: where the system likes.
  void bind(const std::vector<Core>& cores);
  /// Before so many threads compute: those that are new come to where they are bound.
  void use(int threads) const;

 private:
  const int threads_;
#ifdef __linux__
  std::vector<cpu_set_t> sets_;
  uint64_t binding_ = 0;  // a number of its own for each time that threads were bound
#endif
};

/// As many threads as this process should compute on; OMP_NUM_THREADS has the last word.
Threads threads_here(const Sharing& sharing);

}  // namespace titan::cpu
