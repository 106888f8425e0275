#include "executor.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>

namespace titan {
namespace {

// At exit the C library unloads BLAS and OpenMP under a running executor. So a halt lets the kernels that run end, and no other begin.
std::atomic<bool> halting{false};
std::atomic<int> computing{0};

}  // namespace

Computing::Computing() {
  computing++;
  if (!halting) return;
  computing--;
  stop_at_exit();
}

Computing::~Computing() { computing--; }

void stop_at_exit() {
  if (halting)
    for (;;) pause();
}

void halt_executors() {
  halting = true;
  for (int waited_ms = 0; computing && waited_ms < 10'000; waited_ms++) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

Executor::Executor() {
  // The executor, and the threads that it makes, take no signals: those are for the threads of the host process.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { serve(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Executor::~Executor() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  posted_.notify_one();
  thread_.join();
}

void Executor::post(Job& job) {
  std::lock_guard lock(mutex_);
  (first_ ? last_->next : first_) = &job;
  last_ = &job;
  posted_.notify_one();
}

std::exception_ptr Executor::join(Job& job) {
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [&] { return job.done; });
  return job.thrown;
}

void Executor::wait(Job& job) {
  if (const std::exception_ptr thrown = join(job)) std::rethrow_exception(thrown);
}

bool Executor::wait_for(Job& job, uint64_t milliseconds) {
  std::unique_lock lock(mutex_);
  if (!finished_.wait_for(lock, std::chrono::milliseconds(milliseconds), [&] { return job.done; })) return false;
  if (job.thrown) std::rethrow_exception(job.thrown);
  return true;
}

void Executor::serve() {
  std::unique_lock lock(mutex_);
  for (;;) {
    posted_.wait(lock, [&] { return first_ || closing_; });
    if (!first_) return;
    Job& job = *first_;
    first_ = job.next;
    lock.unlock();
    try {
      job.call(job.work);
    } catch (...) {
      job.thrown = std::current_exception();
    }
    lock.lock();
    job.done = true;
    finished_.notify_all();
  }
}

}  // namespace titan
