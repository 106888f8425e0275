// A device and what runs on it. Each device has one executor thread, which owns the OpenMP team; callers post work and wait.
#pragma once
#ifdef __linux__
#include <sched.h>
#endif

#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "comm/collective.h"
#include "limits.h"
#include "program.h"

namespace titan {

class Executor {
 public:
  explicit Executor(int threads);
  ~Executor();
  /// Runs `work` on the executor thread, after the work posted before it, and returns when it is done; rethrows what it throws.
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
  int threads() const { return threads_; }
#ifdef __linux__
  /// From now on each thread of the team runs on one of these sets of processors, in turn.
  void bind(std::vector<cpu_set_t> sets);
#endif
  /// On the executor thread, before it computes on so many threads: those that are new come to where they are bound.
  void use_threads(int threads);

 private:
  void serve();

  const int threads_;
  std::mutex mutex_;
  std::condition_variable posted_, finished_;
  Job *first_ = nullptr, *last_ = nullptr;
  bool closing_ = false;
#ifdef __linux__
  std::vector<cpu_set_t> sets_;  // only the executor thread looks at these
  uint64_t binding_ = 0;         // a number of its own for each time that threads were bound
#endif
  std::thread thread_;
};

namespace comm {
class World;
}

struct Device {
  const Backend& backend;
  bool level_is_forced;
  Executor executor;
  std::string threads_text;            // why so many threads, and where they run
  std::mutex mutex;
  MemorySharing memory_sharing;        // with the ranks of this host; under the mutex
  std::shared_ptr<comm::World> world;  // null where it works alone
};

/// One block of zeroed memory, 2 MB aligned, in huge pages where the system gives them.
class Arena {
 public:
  /// `shared` is such memory that the ranks of a host share, and which somebody else owns; null makes it.
  explicit Arena(uint64_t bytes, char* shared = nullptr);
  ~Arena();
  Arena(const Arena&) = delete;
  char* data() const { return data_; }
  /// Leaves the memory to the process until its end.
  void keep() { owns_ = false; }
  /// Writes to every page from the OpenMP team of the calling thread, so that no step pays for page faults.
  void touch(int threads);
  /// How much of it the system has put into huge pages; 0 where it does not say.
  uint64_t huge_bytes() const;

 private:
  char* data_ = nullptr;
  uint64_t bytes_, mapped_bytes_;
  bool owns_ = true;
};

/// How many instructions of a run each stream has done. A stream waits until another has come so far: an event.
class Progress {
 public:
  static constexpr int NOBODY = -1;
  void begin();
  /// This stream has done one more.
  void advance(uint32_t stream);
  /// This stream has failed: the other is not to begin anything more.
  void stop(uint32_t stream);
  /// The stream that failed first, or NOBODY.
  int stopped_by() const { return stopped_by_; }
  /// Waits until a stream has done n in all; false where it never will.
  bool wait(uint32_t stream, uint64_t n) const;

 private:
  std::atomic<uint64_t> done_[NUM_STREAMS] = {};  // UINT64_MAX once a stream has stopped
  std::atomic<int> stopped_by_{NOBODY};
};

/// A program with its memory.
class LoadedProgram {
 public:
  /// Loads it. Where that fails, the other ranks get to know.
  static std::shared_ptr<LoadedProgram> load(const std::shared_ptr<Device>& device, const uint8_t* bytes, uint64_t num_bytes);
  LoadedProgram(std::shared_ptr<Device> device, const uint8_t* bytes, uint64_t num_bytes);
  ~LoadedProgram();

  struct Host {
    const uint8_t* input;
    uint64_t input_bytes;
    uint8_t* output;
    uint64_t output_bytes;
  };
  void run(const titan_action* actions, uint64_t num_actions, const Host& host);
  /// The next run writes a record per instruction here.
  void profile(titan_profile_record* records, uint64_t capacity);
  /// On the calling thread, beside sections that do not write there.
  void read(uint64_t offset, uint8_t* bytes, uint64_t num_bytes);
  /// On the calling thread, while no section runs.
  void write(uint64_t offset, const uint8_t* bytes, uint64_t num_bytes);
  titan_memory memory() const;

 private:
  void check_action(const titan_action& action, uint64_t i, const Host& host) const;
  void check_capacity(const titan_action* actions, uint64_t num_actions, uint64_t capacity) const;
  /// What both streams of a run look at.
  struct Run {
    const titan_action* actions;
    uint64_t num_actions;
    const Host& host;
    titan_profile_record* records;  // of all actions, or null
    bool together;                  // are there collectives?
  };
  /// How many instructions of each stream come before an action of a run.
  struct Before {
    uint64_t on[NUM_STREAMS];
  };
  void run_streams(const Run& run);
  /// Whatever is thrown in there leaves it as a Failure that says where; the other stream and the other ranks know of it then.
  void run_stream(uint32_t stream, const Run& run);
  /// The stream's instructions of an action; false where it cannot go on, as the other has stopped.
  bool run_section(uint32_t stream, const Run& run, uint64_t i, const Before& before, titan_profile_record* records);
  bool may_begin(uint32_t stream, const Instruction& instruction, const Before& before) const;
  void place_host_operands(const Section& section, const titan_action& action, const Host& host);
  void run_collective(const Instruction& instruction);
  void check_finite(uint64_t instruction) const;
  char* range(uint64_t offset, uint64_t num_bytes) const;

  std::shared_ptr<Device> device_;
  Program program_;
  std::vector<comm::Collective> collectives_;  // in the order of their instructions
  comm::Loading loading_;
  Arena arena_;
  uint64_t huge_bytes_ = 0;
  Progress progress_;
  std::vector<Before> last_[NUM_STREAMS];  // by stream, which looks at its own alone, and section: before the last action that ran it
  Access access_;
  bool has_run_ = false;
  titan_profile_record* records_ = nullptr;  // of the next run; only the executor thread looks at these
  uint64_t record_capacity_ = 0;
};

/// Runs a kernel, unless the process is about to end: then it never returns.
void run_kernel(const Kernel& kernel, const Call& call);

/// Returns, unless the process is about to end.
void stop_at_exit();

/// Stops every executor after the instruction it is at, for good: the process is about to end and the libraries below with it.
void halt_executors();

}  // namespace titan
