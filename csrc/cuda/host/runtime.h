// The CUDA runtime, played on a CPU for tests: api.h says which functions. Work waits in its stream until the host waits for something; then streams go on
// in an order drawn by lot among those that events allow. What a GPU would leave to chance is refused:
//   two accesses to a place, one of which writes, that neither stream, event nor the host's waiting orders (vector clocks)
//   access to memory that was freed, never was, or of which a dense operand has not been written
//   memory of the host that changes while a copy from it is under way, and results that are looked at before they are there (they are poison)
//   while a stream is captured, what CUDA does not allow: allocating, freeing, waiting, waiting for events of outside, forks that do not join
// The first such problem is an error of whatever waits, as a fault of a GPU is, and stays one.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "../../backend.h"

namespace titan::cuda::host {

/// What a run of the played runtime is to be like. All numbers of calls count from `play` on.
struct Play {
  uint64_t seed = 1;
  uint64_t memory_bytes = uint64_t{4} << 30;  // of the GPU
  int64_t fails = -1;                         // the call of this number fails
  std::string fails_of{};                     // it is counted among those of this function, where one is named
  int64_t forgets_wait = -1;                  // the cudaStreamWaitEvent of this number is left out: a planted error
  int64_t forgets_host_wait = -1;             // the cudaEventSynchronize or cudaStreamSynchronize of this number
};
void play(const Play& play);

/// Since `play`.
struct Played {
  int64_t calls, waits, host_waits, launches, graph_launches;
  std::string problem;    // the first, or nothing
  std::string last_call;  // that failed as it was asked to
  std::map<std::string, int64_t> calls_of;  // by function
};
Played played();

/// What has not been given back: allocations, streams, events, graphs and communicators.
int64_t left();

/// A place in memory that work reads or writes.
struct Touch {
  uintptr_t begin, end;
  bool writes, dense;
};

/// Puts the work of a kernel into a stream. It returns what was wrong with it, or nothing.
void submit(void* stream, std::function<std::string()> work);

/// While there is one, what is submitted is that of a call, which reads its inputs and writes its outputs and scratch.
class Submitting {
 public:
  Submitting(const Call& call, int inputs, const char* name);
  ~Submitting();
  Submitting(const Submitting&) = delete;
};

}  // namespace titan::cuda::host
