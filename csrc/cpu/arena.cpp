#include "arena.h"

#include <sys/mman.h>
#ifdef __linux__
#include <linux/prctl.h>
#include <sys/prctl.h>
#endif
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "../clock.h"
#include "../failure.h"
#include "../limits.h"
#include "parallel.h"

namespace titan::cpu {
namespace {

constexpr uint64_t HUGE_PAGE = uint64_t{2} << 20;
const uint64_t PAGE = static_cast<uint64_t>(sysconf(_SC_PAGE_SIZE));

/// Asks for huge pages in memory that processes share: by default Linux gives it none of its own accord, whatever madvise says before.
class HugePages {
 public:
  /// Of a whole huge page, of which one small page is in use; that one says on which node of the machine it is to be.
  void ask([[maybe_unused]] char* block) {
#ifdef MADV_COLLAPSE
    // A tenth of a millisecond each, but hundreds of times that on machines that are busy with something else: then the rest stay small.
    if (took_ns_ > MOST_NS + MOST_NS_EACH * asked_) return;
    const uint64_t begun = now_ns();
    madvise(block, HUGE_PAGE, MADV_COLLAPSE);
    took_ns_ += now_ns() - begun;
    asked_++;
#endif
  }

 private:
  static constexpr uint64_t MOST_NS = 50'000'000, MOST_NS_EACH = 1'000'000;
  uint64_t asked_ = 0, took_ns_ = 0;
};

}  // namespace

Arena::Arena(uint64_t bytes, char* shared) : bytes_(bytes), mapped_bytes_(std::max(PAGE, (bytes + PAGE - 1) / PAGE * PAGE)) {
  const uint64_t available = memory_of({}).available;
  const auto refuse = [&] {
    throw Failure(TITAN_STATUS_OUT_OF_MEMORY, text("the program's arena takes ", bytes, " bytes; expected: at most ", available,
                                                   ", the memory that is there for this process; fix: a smaller batch or model"));
  };
  if (bytes > available) refuse();
  if (shared) {
    data_ = shared;
    owns_ = false;
    return;
  }
  // Map one huge page more than needed and give back what lies outside the aligned part: what stays is as large as planned.
  void* mapped = mmap(nullptr, mapped_bytes_ + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) refuse();
  char* start = static_cast<char*>(mapped);
  data_ = start + (HUGE_PAGE - reinterpret_cast<uintptr_t>(start) % HUGE_PAGE) % HUGE_PAGE;
  if (data_ != start) munmap(start, static_cast<size_t>(data_ - start));
  if (data_ != start + HUGE_PAGE) munmap(data_ + mapped_bytes_, static_cast<size_t>(start + HUGE_PAGE - data_));
#ifdef MADV_HUGEPAGE
  if (bytes >= HUGE_PAGE) madvise(data_, mapped_bytes_, MADV_HUGEPAGE);
#endif
#ifdef PR_SET_VMA
  // For people who read /proc/PID/smaps; kernels without names for memory refuse it.
  prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, data_, mapped_bytes_, "libtitan arena");
#endif
}

Arena::~Arena() {
  if (owns_) munmap(data_, mapped_bytes_);
}

void Arena::touch(int threads) {
  const auto blocks = static_cast<int64_t>((bytes_ + HUGE_PAGE - 1) / HUGE_PAGE);
  for_each(threads, threads, [&](int64_t thread) {
    HugePages huge;
    for (int64_t block = blocks * thread / threads; block < blocks * (thread + 1) / threads; block++) {
      const uint64_t begin = static_cast<uint64_t>(block) * HUGE_PAGE, end = std::min(begin + HUGE_PAGE, mapped_bytes_);
      volatile char* data = data_;
      data[begin] = 0;
      if (!owns_ && end - begin == HUGE_PAGE) huge.ask(data_ + begin);
      for (uint64_t at = begin + PAGE; at < end; at += PAGE) data[at] = 0;
    }
  });
}

uint64_t Arena::huge_bytes() const {
  uint64_t bytes = 0;
  FILE* file = std::fopen("/proc/self/smaps", "r");
  if (!file) return bytes;
  const auto begin = reinterpret_cast<uintptr_t>(data_), end = begin + mapped_bytes_;
  char line[512];
  bool inside = false;
  while (std::fgets(line, sizeof line, file)) {
    unsigned long long first = 0, last = 0, kilobytes = 0;
    if (std::sscanf(line, "%llx-%llx ", &first, &last) == 2) inside = first < end && begin < last;
    else if (inside && (std::sscanf(line, "AnonHugePages: %llu", &kilobytes) == 1 || std::sscanf(line, "ShmemPmdMapped: %llu", &kilobytes) == 1)) bytes += kilobytes << 10;
  }
  std::fclose(file);
  return std::min(bytes, mapped_bytes_);
}

}  // namespace titan::cpu
