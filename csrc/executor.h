// Threads that do work in turn: callers post it, and wait. Each device has one, and so have the ranks that it has joined.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>

namespace titan {

class Executor {
 public:
  Executor();
  ~Executor();
  /// Runs `work` on the executor's thread, after the work posted before it, and returns when it is done; rethrows what it throws.
  template <class Work> void run(Work&& work) {
    Job job(work);
    post(job);
    wait(job);
  }
  /// Work on its way. Jobs live with whoever posts them until they are done: posting allocates nothing.
  struct Job {
    Job() = default;
    template <class Work> explicit Job(Work& work) : work(&work), call([](void* work) { (*static_cast<Work*>(work))(); }) {}
    void* work = nullptr;
    void (*call)(void*) = nullptr;
    Job* next = nullptr;
    bool done = false;
    std::exception_ptr thrown;
  };
  void post(Job& job);
  /// Returns when the job is done, with what it threw.
  std::exception_ptr join(Job& job);
  /// Returns when the job is done; rethrows what it threw.
  void wait(Job& job);
  /// Waits so long at most: false where the job is not done by then.
  bool wait_for(Job& job, uint64_t milliseconds);

 private:
  void serve();

  std::mutex mutex_;
  std::condition_variable posted_, finished_;
  Job *first_ = nullptr, *last_ = nullptr;
  bool closing_ = false;
  std::thread thread_;
};

/// While there is one, its thread computes, and the end of the process waits for that. Where the process is about to end, none is made any more:
/// the thread stays there for good.
class Computing {
 public:
  Computing();
  ~Computing();
  Computing(const Computing&) = delete;
};

/// Returns, unless the process is about to end.
void stop_at_exit();

/// Stops all that compute after the kernel they are at, for good: the process is about to end and the libraries below with it.
void halt_executors();

}  // namespace titan
