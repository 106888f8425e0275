// A device and what runs on it. Each device has one executor thread, which owns the OpenMP team; callers post work and wait.
#pragma once
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "program.h"

namespace titan {

class Executor {
 public:
  explicit Executor(int threads);
  ~Executor();
  /// Runs `work` on the executor thread, after the work posted before it, and returns when it is done; rethrows what it throws.
  template <class Work> void run(Work&& work) {
    Job job;
    job.work = &work;
    job.call = [](void* work) { (*static_cast<std::remove_reference_t<Work>*>(work))(); };
    post_and_wait(job);
  }
  int threads() const { return threads_; }

 private:
  // Jobs live on their callers' stacks: posting allocates nothing.
  struct Job {
    void* work;
    void (*call)(void*);
    Job* next = nullptr;
    bool done = false;
    std::exception_ptr thrown;
  };
  void post_and_wait(Job& job);
  void serve();

  const int threads_;
  std::mutex mutex_;
  std::condition_variable posted_, finished_;
  Job *first_ = nullptr, *last_ = nullptr;
  bool closing_ = false;
  std::thread thread_;
};

struct Device {
  const Backend& backend;
  bool level_is_forced;
  Executor executor;
};

/// Memory that this process may use in all.
uint64_t memory_limit();

/// One block of zeroed memory, 2 MB aligned, in huge pages where the system gives them.
class Arena {
 public:
  explicit Arena(uint64_t bytes);
  ~Arena();
  Arena(const Arena&) = delete;
  char* data() const { return data_; }
  /// Writes to every page from the OpenMP team of the calling thread, so that no step pays for page faults.
  void touch(int threads);

 private:
  char* data_ = nullptr;
  uint64_t bytes_, mapped_bytes_;
};

/// A program with its memory.
class LoadedProgram {
 public:
  LoadedProgram(std::shared_ptr<Device> device, const uint8_t* bytes, uint64_t num_bytes);

  struct Host {
    const uint8_t* input;
    uint64_t input_bytes;
    uint8_t* output;
    uint64_t output_bytes;
  };
  void run(const titan_action* actions, uint64_t num_actions, const Host& host);
  /// The next run writes a record per instruction here.
  void profile(titan_profile_record* records, uint64_t capacity);
  void read(uint64_t offset, uint8_t* bytes, uint64_t num_bytes);
  void write(uint64_t offset, const uint8_t* bytes, uint64_t num_bytes);
  titan_memory memory() const;

 private:
  void check_action(const titan_action& action, uint64_t i, const Host& host) const;
  void check_capacity(const titan_action* actions, uint64_t num_actions, uint64_t capacity) const;
  /// `record` is where the next record goes, or null.
  void run_action(const titan_action* actions, uint64_t i, const Host& host, titan_profile_record*& record);
  void check_finite(const titan_action& action, uint64_t instruction) const;
  char* range(uint64_t offset, uint64_t num_bytes) const;

  std::shared_ptr<Device> device_;
  Program program_;
  Arena arena_;
  titan_profile_record* records_ = nullptr;  // of the next run; only the executor thread looks at these
  uint64_t record_capacity_ = 0;
};

/// Runs a kernel, unless the process is about to end: then it never returns.
void run_kernel(const Kernel& kernel, const Call& call);

/// Stops every executor after the instruction it is at, for good: the process is about to end and the libraries below with it.
void halt_executors();

}  // namespace titan
