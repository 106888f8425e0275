// What the engine asks of several GPUs: collectives between them, in streams. NCCL does it (comm/nccl); no other file of the engine names it.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../comm/nccl/ranks.h"
#include "resources.h"

namespace titan::cuda {

/// Memory of the current GPU for an arena whose tensors are exchanged.
Arena make_exchanged_arena(uint64_t bytes);

/// The groups of a program, and its arena, made by `make_exchanged_arena`, in which all tensors of its collectives lie.
struct Exchange {
  std::vector<std::vector<int>> groups;  // each by its ranks, in order; those in which this rank is
  void* arena;
  uint64_t arena_bytes;
};

/// Collectives of one program. All is called from the thread of the device, which is the current one. Graphs that hold collectives have been given back before
/// this is destroyed or aborted: NCCL waits for that. One that runs then goes when it ends.
class Collectives {
 public:
  virtual ~Collectives() = default;
  /// Puts a collective of a group into a stream, which may be captured. Ranks of a group launch its collectives in the same order. Throws a Failure where that
  /// is refused, and after `abort`.
  virtual void launch(const comm::Collective& collective, size_t group, cudaStream_t stream) = 0;
  /// What has gone wrong with something launched, or nothing. Asked again and again while the host waits.
  virtual std::string error() = 0;
  /// Ends what is under way on this GPU, whether the others come or not: streams get past it. Nothing can be launched from then on.
  virtual void abort() noexcept = 0;
};

/// All ranks of the world do so together.
std::unique_ptr<Collectives> open_collectives(comm::Ranks& ranks, const Exchange& exchange);

}  // namespace titan::cuda
