#include "progress.h"

namespace titan::cpu {

void Progress::begin() {
  for (auto& done : done_) done = 0;
  stopped_by_ = NOBODY;
}

void Progress::advance(uint32_t stream) {
  auto& done = done_[stream];
  // Once stopped it stays so: only this stream counts here, but the other may stop both.
  uint64_t n = done.load(std::memory_order_relaxed);
  if (n != UINT64_MAX) done.compare_exchange_strong(n, n + 1, std::memory_order_release, std::memory_order_relaxed);
  done.notify_all();
}

void Progress::stop(uint32_t stream) {
  int none = NOBODY;
  stopped_by_.compare_exchange_strong(none, static_cast<int>(stream));
  for (auto& done : done_) {
    done.store(UINT64_MAX, std::memory_order_release);
    done.notify_all();
  }
}

bool Progress::wait(uint32_t stream, uint64_t n) const {
  const auto& other = done_[stream];
  for (uint64_t done; (done = other.load(std::memory_order_acquire)) < n;) other.wait(done, std::memory_order_acquire);
  return stopped_by_ == NOBODY;
}

}  // namespace titan::cpu
