// Which processors a rank computes on: the ranks of a host share out those that they may all use, so that none works on another's.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "../executor.h"

namespace titan::comm {

/// What a rank tells the others of its host.
struct Processors {
  uint64_t bits[16];  // of the processors that it may use
  uint32_t threads;   // that its device computes on
};

/// Those of this process.
Processors own_processors(int threads);

/// What a rank gets of its host's processors: none if its threads are to run where the system likes. `text` says which or why.
struct Share {
  std::vector<int> processors;
  std::string text;
};

/// Of ranks that may use the same processors, each gets as many of them, whole cores first; if that is too few for the threads of one, nobody does.
/// `cores` puts the threads of a core next to each other: processors in that order.
Share share_of(const std::vector<Processors>& ranks, size_t self, const std::vector<int>& cores);

/// All processors of this host, in such an order.
std::vector<int> processors_by_core();

/// From now on the device's threads run on these.
void bind(Executor& executor, const std::vector<int>& processors);

}  // namespace titan::comm
