// The collectives of kernels.def: checked when a program is loaded, and turned into what modules and shared memory take.
#pragma once
#include <algorithm>
#include <vector>

#include "../backend.h"
#include "module.h"

namespace titan::comm {

/// In the order of kernels.def. They have no `run`: they are run by the device's World.
extern const Kernel COLLECTIVES[];
extern const int NUM_COLLECTIVES;

/// A call of collective `index`, checked before.
struct Collective {
  std::vector<int> ranks;  // of its group, in order
  std::vector<titan_comm_tensor> tensors;
  titan_comm_call call;  // but for `tensors`
  uint64_t bytes = 0;    // of the operands that this rank gives
  bool last = false;     // only done in a step's last microbatch
  /// What this rank sends where ranks pass pieces around in rings: messages and bytes.
  uint64_t messages() const {
    const uint64_t others = ranks.size() - 1;
    return call.kind == TITAN_COMM_RING_SHIFT ? std::min<uint64_t>(1, others) : call.kind == TITAN_COMM_ALL_REDUCE ? 2 * others : others;
  }
  double sent_bytes() const {
    const auto all = static_cast<double>(bytes) * static_cast<double>(messages());
    return call.kind == TITAN_COMM_ALL_GATHER || call.kind == TITAN_COMM_RING_SHIFT ? all : all / static_cast<double>(ranks.size());
  }
};
Collective read_collective(int index, const Call& call);

struct Group;

/// What the ranks have agreed on when they loaded a program.
struct Loading {
  int number = -1;             // of the arena among the memory that they share
  char* memory = nullptr;      // of the arena, where they share it
  std::vector<Group*> groups;  // of the collectives
};

}  // namespace titan::comm
