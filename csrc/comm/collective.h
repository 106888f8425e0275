// The collectives of kernels.def: checked when a program is loaded, and turned into what modules and shared memory take.
#pragma once
#include <vector>

#include "../backend.h"
#include "module.h"

namespace titan::comm {

/// In the order of kernels.def. They have no `run`: they are run by the device's World.
extern const Kernel COLLECTIVES[];
constexpr int NUM_COLLECTIVES = titan_comm_num_kinds;

/// A call of collective `index`, checked before.
struct Collective {
  std::vector<int> ranks;  // of its group, in order
  std::vector<titan_comm_tensor> tensors;
  titan_comm_call call;  // but for `tensors`
  uint64_t bytes = 0;    // of the operands that this rank gives
  bool first = false;    // only done in a step's first microbatch
  bool last = false;     // only in its last
  int member = -1;       // of an exchange: which of the group this rank is, by the program
  uint64_t slot = 0;     // which the addresses of tensors in slots are for
  /// Points the tensors in slots, which lie one after another from `slots` on up to the arena's end, at an action's slot.
  void move(const char* slots, uint64_t slot_bytes, uint64_t to);
  /// What this rank sends where ranks pass pieces around in rings: messages and bytes.
  uint64_t messages() const;
  double sent_bytes() const;
  /// How long a link takes for that, and for what this rank receives, which travels beside it: in rings as much.
  uint64_t link_ns(double bytes_per_second, uint64_t latency_ns) const;
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
