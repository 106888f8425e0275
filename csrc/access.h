// Who is in a program's arena. A section runs on the executor thread; callers copy state in and out beside it, on their own threads.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

namespace titan {

/// Bytes of the arena, from begin up to end.
struct Range {
  uint64_t begin, end;
};

/// Sorts ranges, and joins those that touch.
std::vector<Range> join_ranges(std::vector<Range> ranges);

/// Does one of these, which join_ranges made, share a byte with another range?
bool overlap(const std::vector<Range>& ranges, Range other);

/// Kernels run on one stream, collectives on another.
constexpr uint32_t NUM_STREAMS = 2;

/// Keeps sections and copies out of each other's way. Each stream is in a section of its own, and waits for the copies under way that read what
/// it writes there, and for those that write anything; a copy waits for the streams likewise. A copy under way waits for nothing, and a stream for
/// those alone, so they cannot lock each other out.
class Access {
 public:
  /// On the stream's thread: it begins a section, of which it writes these.
  void begin(uint32_t stream, const std::vector<Range>& writes);
  void end(uint32_t stream);
  /// Does `copy` on the calling thread while nobody is in its way.
  template <class Copy> void read(Range from, Copy copy) {
    const Copying copying(*this, {from, false});
    copy();
  }
  template <class Copy> void write(Range to, Copy copy) {
    const Copying copying(*this, {to, true});
    copy();
  }

 private:
  struct Use {
    Range range;
    bool writes;
  };
  /// A copy under way, also where it ends in a failure.
  struct Copying {
    Copying(Access& access, const Use& use) : access(access), use(use) { access.enter(use); }
    ~Copying() { access.leave(use); }
    Copying(const Copying&) = delete;
    Access& access;
    const Use use;
  };
  static bool conflict(const std::vector<Range>& writes, const Use& use);
  void enter(const Use& use);
  void leave(const Use& use);

  std::mutex mutex_;
  std::condition_variable changed_;
  const std::vector<Range>* sections_[NUM_STREAMS] = {};  // by stream: what it writes where it is, or waits to be
  std::vector<Use> copies_;                      // under way
};

}  // namespace titan
