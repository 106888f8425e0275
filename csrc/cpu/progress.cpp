#include "progress.h"

namespace titan::cpu {

void Progress::begin() {
  for (auto& done : done_) done = 0;
  for (auto& awaited : awaited_) awaited = 0;
  stopped_by_ = NOBODY;
}

void Progress::advance(uint32_t stream) {
  auto& done = done_[stream];
  // Once stopped it stays so: only this stream counts here, but the other may stop both.
  uint64_t n = done.load(std::memory_order_relaxed);
  if (n != UINT64_MAX) done.compare_exchange_strong(n, n + 1);
  // In one order for all: either this sees how far the other waits, or the other that it need not.
  if (n + 1 == awaited_[stream].load()) done.notify_all();
}

void Progress::stop(uint32_t stream) {
  int none = NOBODY;
  stopped_by_.compare_exchange_strong(none, static_cast<int>(stream));
  for (auto& done : done_) {
    done.store(UINT64_MAX, std::memory_order_release);
    done.notify_all();
  }
}

bool Progress::wait(uint32_t stream, uint64_t n) {
  const auto& other = done_[stream];
  if (other.load(std::memory_order_acquire) < n) {
    awaited_[stream].store(n);
    for (uint64_t done; (done = other.load()) < n;) other.wait(done);
  }
  return stopped_by_ == NOBODY;
}

}  // namespace titan::cpu
