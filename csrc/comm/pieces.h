// How tensors are cut for ranks, and in which steps they travel: the same on both ends.
#pragma once
#include <algorithm>
#include <cstdint>

#include "module.h"

namespace titan::comm {

constexpr int LANES = TITAN_COMM_LANES;          // stages of messages that are under way at once
constexpr int64_t MOST_STAGE_BYTES = 256 << 10;  // of a piece that travel at a time
constexpr int64_t MOST_STAGED_BYTES = 16 << 20;  // of all members, in all lanes
constexpr int64_t LEAST_STAGE_BYTES = 16 << 10;

/// Elements of a piece that travel at a time, for a group of `size` ranks.
inline int64_t stage_elements(int64_t size, int64_t element_bytes) {
  return std::clamp(MOST_STAGED_BYTES / (LANES * size), LEAST_STAGE_BYTES, MOST_STAGE_BYTES) / element_bytes;
}

/// Elements from which on piece `piece` of an all_reduce begins: whole cache lines.
inline uint64_t piece_start(uint64_t elements, uint64_t size, uint64_t piece) {
  const uint64_t each = (elements + size - 1) / size;
  return std::min(elements, piece * ((each + 63) / 64 * 64));
}

/// Where piece elements [start, start + count) of all rows' pieces of `chunk` elements lie: calls each(byte offset in a part, byte offset in the whole
/// less the piece's, bytes).
template <class Each> void each_run(uint64_t elements, int64_t pieces, int64_t size, int64_t start, int64_t count, Each each) {
  const auto chunk = static_cast<int64_t>(elements);
  for (int64_t at = start; at < start + count;) {
    const int64_t row = at / chunk, column = at % chunk, run = std::min(chunk - column, start + count - at);
    each(at * size, (row * pieces * chunk + column) * size, run * size);
    at += run;
  }
}

}  // namespace titan::comm
