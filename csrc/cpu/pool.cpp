#ifndef _OPENMP
#include "pool.h"

#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "../failure.h"

namespace titan::cpu {
namespace {

/// How often a thread looks before it sleeps: for a fraction of a millisecond, which is longer than most gaps between regions. As with OpenMP,
/// OMP_WAIT_POLICY=passive lets threads sleep at once, and they do so where they are more than the processors.
constexpr int LOOKS = 10'000;
bool may_spin(int threads) {
  static const char* const policy = std::getenv("OMP_WAIT_POLICY");
  static const bool passive = policy && (std::string(policy) == "passive" || std::string(policy) == "PASSIVE");
  static const unsigned processors = std::thread::hardware_concurrency();
  return !passive && unsigned(threads) <= processors;
}
void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}
/// Returns when `word` is no longer `old`.
void wait_while(const std::atomic<int>& word, int old, bool spins) {
  for (int i = 0; spins && i < LOOKS; i++) {
    if (word.load(std::memory_order_acquire) != old) return;
    pause();
  }
  word.wait(old, std::memory_order_acquire);
}

class Pool {
 public:
  ~Pool() {
    work_ = nullptr;
    for (const auto& worker : workers_) begin(*worker);
    for (const auto& worker : workers_) worker->thread.join();
  }

  void run(int threads, void (*work)(void*, int, int), void* what) {
    while (int(workers_.size()) < threads - 1) add(threads);
    work_ = work, what_ = what, threads_ = threads, spins_ = may_spin(threads);
    running_.store(threads - 1, std::memory_order_relaxed);
    for (int i = 0; i < threads - 1; i++) begin(*workers_[size_t(i)]);
    work(what, 0, threads);
    for (int left; (left = running_.load(std::memory_order_acquire)) > 0;) wait_while(running_, left, spins_);
  }

  void meet() {
    const int round = met_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 < threads_) {
      while (met_.load(std::memory_order_acquire) == round) wait_while(met_, round, spins_);
    } else {
      arrived_.store(0, std::memory_order_relaxed);
      met_.store(round + 1, std::memory_order_release);
      met_.notify_all();
    }
  }

 private:
  struct alignas(64) Worker {
    std::atomic<int> begun{0};  // regions that it has been called to
    std::thread thread;
  };

  static void begin(Worker& worker) {
    worker.begun.fetch_add(1, std::memory_order_release);
    worker.begun.notify_one();
  }
  void add(int threads) {
    auto worker = std::make_unique<Worker>();
    try {
      worker->thread = std::thread([this, it = worker.get(), number = int(workers_.size()) + 1] { serve(*it, number); });
    } catch (const std::system_error& error) {
      throw Failure(TITAN_STATUS_OUT_OF_MEMORY, text("the system gives no thread ", workers_.size() + 2, " of ", threads, ": ", error.what(), "; fix: use fewer threads, or raise the limit (ulimit -u)"));
    }
    workers_.push_back(std::move(worker));
  }
  void serve(Worker& worker, int number);

  // Written by the thread that opens regions, while no worker is in one.
  void (*work_)(void*, int, int) = nullptr;
  void* what_ = nullptr;
  int threads_ = 0;
  bool spins_ = false;
  std::vector<std::unique_ptr<Worker>> workers_;
  alignas(64) std::atomic<int> running_{0};  // workers that are not yet done
  alignas(64) std::atomic<int> arrived_{0};  // threads that wait for the others of their region
  std::atomic<int> met_{0};                  // how often all have met
};

thread_local Pool* current = nullptr;  // the pool whose region this thread is in
thread_local bool alone = false;       // in a region of one thread

void Pool::serve(Worker& worker, int number) {
  current = this;
  for (int round = 0;; round++) {
    while (worker.begun.load(std::memory_order_acquire) == round) wait_while(worker.begun, round, may_spin(number + 1));
    if (!work_) return;
    work_(what_, number, threads_);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_one();
  }
}

}  // namespace

void run_region(int threads, void (*work)(void* what, int thread, int threads), void* what) {
  if (threads <= 1 || in_region()) {
    const bool before = alone;
    alone = true;
    work(what, 0, 1);
    alone = before;
    return;
  }
  static thread_local Pool pool;
  current = &pool;
  pool.run(threads, work, what);
  current = nullptr;
}

bool in_region() { return current != nullptr; }

void wait_for_region() {
  if (current && !alone) current->meet();
}

}  // namespace titan::cpu
#endif
