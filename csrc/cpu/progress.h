// How the streams of a program on a CPU wait for each other.
#pragma once
#include <atomic>
#include <cstdint>

#include "../access.h"

namespace titan::cpu {

/// How many instructions of a run each stream has done. A stream waits until another has come so far: an event.
class Progress {
 public:
  static constexpr int NOBODY = -1;
  void begin();
  /// This stream has done one more.
  void advance(uint32_t stream);
  /// This stream has failed: the other is not to begin anything more.
  void stop(uint32_t stream);
  /// The stream that failed first, or NOBODY.
  int stopped_by() const { return stopped_by_; }
  /// Waits until a stream has done n in all; false where it never will.
  bool wait(uint32_t stream, uint64_t n);

 private:
  static_assert(NUM_STREAMS == 2, "each stream has one other that waits for it");
  std::atomic<uint64_t> done_[NUM_STREAMS] = {};  // UINT64_MAX once a stream has stopped
  // Up to where the other waits for a stream: it is woken there, and not by each instruction on the way.
  std::atomic<uint64_t> awaited_[NUM_STREAMS] = {};
  std::atomic<int> stopped_by_{NOBODY};
};

}  // namespace titan::cpu
