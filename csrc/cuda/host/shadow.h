// Who has touched which memory in a launch of the emulator: a cell for every two bytes, with the last write and what is known of reads.
//
// Time is cut into intervals: a block begins one, and so does each of its barriers; all intervals of a process are numbered. So an access of the
// current interval is by the running block with no barrier since, one since `block` is ordered by a barrier, and one since `launch` is another block's.
#pragma once
#include <cstdint>
#include <memory>
#include <unordered_map>

namespace titan::cuda::host {

/// The running thread's moment. Its warp's barriers are counted anew in each interval.
struct Moment {
  uint32_t launch, block, interval;
  uint16_t thread;
  uint8_t warp_barriers;
};

struct Cell {
  uint32_t written, read;  // intervals
  uint16_t writer, reader;
  uint8_t written_warp_barriers, read_warp_barriers, readers;
  bool awaits_copy;  // an asynchronous one, which may write at any moment
  enum : uint8_t { LANES = 1, WARPS = 2, BLOCKS = 4 };  // of readers: more than one

  static bool same_warp(uint16_t a, uint16_t b) { return a / 32 == b / 32; }
  bool write_is_ordered(const Moment& now) const {
    if (written < now.launch) return true;
    if (written < now.block) return false;
    return written != now.interval || writer == now.thread || (same_warp(writer, now.thread) && written_warp_barriers != now.warp_barriers);
  }
  bool reads_are_ordered(const Moment& now) const {
    if (read < now.launch) return true;
    if (read < now.block || (readers & BLOCKS)) return false;
    if (read != now.interval) return true;
    if ((readers & WARPS) || !same_warp(reader, now.thread)) return false;
    return read_warp_barriers != now.warp_barriers || (reader == now.thread && !(readers & LANES));
  }
  /// False for a race.
  bool note_read(const Moment& now) {
    const bool ordered = write_is_ordered(now);
    if (read < now.launch) readers = 0;
    else if (read < now.block) readers = BLOCKS;
    else if (read < now.interval) readers &= BLOCKS;
    else if (!same_warp(reader, now.thread)) readers |= WARPS;
    else if (read_warp_barriers != now.warp_barriers) readers &= uint8_t(~LANES);
    else if (reader != now.thread) readers |= LANES;
    read = now.interval, reader = now.thread, read_warp_barriers = now.warp_barriers;
    return ordered;
  }
  bool note_write(const Moment& now) {
    const bool ordered = write_is_ordered(now) && reads_are_ordered(now);
    written = now.interval, writer = now.thread, written_warp_barriers = now.warp_barriers;
    return ordered;
  }
};

/// The cells of all memory, made page by page as it is touched.
class Shadow {
 public:
  static constexpr uintptr_t PAGE = 4096, GRANULE = 2;
  Cell& operator[](uintptr_t address) {
    const uintptr_t page = address / PAGE;
    Entry& entry = recent_[page % RECENT];
    if (entry.page != page) {
      auto& cells = pages_[page];
      if (!cells) cells = std::make_unique<Cell[]>(PAGE / GRANULE);
      entry = {page, cells.get()};
    }
    return entry.cells[address % PAGE / GRANULE];
  }

 private:
  static constexpr uintptr_t RECENT = 256;
  struct Entry {
    uintptr_t page = 0;
    Cell* cells = nullptr;
  };
  Entry recent_[RECENT];
  std::unordered_map<uintptr_t, std::unique_ptr<Cell[]>> pages_;
};

}  // namespace titan::cuda::host
