// What the played runtime is made of: memory, streams with work that waits, and the clocks by which it knows what is in order.
#pragma once
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>

#include "runtime.h"

#ifdef TITAN_TOOLKIT_HEADER
#include <cuda_runtime_api.h>
#else
#include "api.h"
#endif

namespace titan::cuda::host {

/// The GPU that the calling thread uses: at first, that of number 0.
int& gpu_of_thread();

constexpr unsigned char POISON = 0xff;  // NaN as a real, -1 as an integer
/// By number of a stream, from 1 on: how much of it comes before.
using Clock = std::vector<uint64_t>;

void join(Clock& into, const Clock& other);
inline uint64_t at(const Clock& clock, int who) { return static_cast<size_t>(who) < clock.size() ? clock[static_cast<size_t>(who)] : 0; }

/// One recording of an event.
struct Record {
  bool done = false;
  double milliseconds = 0;
  Clock clock;
  CUgraph_st* capture = nullptr;
  bool asked = false, forgotten = false, fails = false;  // by cudaEventQuery, the first of which is a wait of the host
};

struct Work {
  std::string name;
  std::function<std::string()> run;
  std::vector<Touch> touches;
  std::shared_ptr<Record> waits, records;
  size_t branch = 0;                       // in a graph: the number of its stream
  std::function<bool()> ready = nullptr;  // what waits for other processes asks whether they have come; else it can run as soon as it is at the front
  std::shared_ptr<void> captured_from = nullptr;  // in a graph: held for as long as that is there
};

struct Allocation {
  size_t bytes;
  bool device, live;
  int gpu;
  std::map<uintptr_t, uintptr_t> written;  // begin to end, apart from each other
  bool by_nccl = false;
};

/// What a stream has touched, and when by its own clock.
struct Past {
  Touch touch;
  int stream;
  uint64_t when;
  std::string name;
};

}  // namespace titan::cuda::host

struct CUstream_st {
  int number;
  titan::cuda::host::Clock clock;
  std::deque<titan::cuda::host::Work> queue;
  CUgraph_st* capture = nullptr;
  bool ends = false;  // when its work is done
  int priority = 0, gpu = titan::cuda::host::gpu_of_thread();
};
struct CUevent_st {
  bool timed;
  std::shared_ptr<titan::cuda::host::Record> record;
  int gpu = titan::cuda::host::gpu_of_thread();
};
struct CUgraph_st {
  CUstream_st* origin;
  std::vector<titan::cuda::host::Work> works;
  std::vector<CUstream_st*> streams;  // that take part
  bool invalid = false;
};
struct CUgraphExec_st {
  std::vector<titan::cuda::host::Work> works;
  std::vector<CUstream_st*> branches;  // streams of its own, for what was captured on others than the first
};

namespace titan::cuda::host {

struct Runtime {
  std::recursive_mutex mutex;
  Play play;
  Played played{};
  std::mt19937_64 random{1};
  std::map<uintptr_t, Allocation> memory;
  std::vector<CUstream_st*> streams;  // by number - 1, null where it has gone
  std::vector<Past> past;
  Clock host;
  int64_t events = 0, graphs = 0, live_streams = 0, live_memory = 0, communicators = 0, descriptors = 0;
  uint64_t device_bytes = 0;
  cudaError_t last = cudaSuccess;
  const std::vector<Touch>* touches = nullptr;  // of the call that is being submitted
  const char* submitting = "a kernel";
};
Runtime& runtime();

/// One call of the runtime: its lock, and the failure that somebody has asked for.
struct Entered {
  std::lock_guard<std::recursive_mutex> lock{runtime().mutex};
  bool fails;
  explicit Entered(const char* name) {
    const Play& play = runtime().play;
    auto& played = runtime().played;
    const int64_t number = played.calls++, own_number = played.calls_of[name]++;
    fails = play.fails_of.empty() ? number == play.fails : name == play.fails_of && own_number == play.fails;
    if (fails) runtime().played.last_call = name;
  }
};

void complain(const std::string& what);
/// The allocation that holds these bytes, or null.
Allocation* find(uintptr_t begin, uintptr_t end);
CUstream_st* make_stream();
void destroy(CUstream_st* stream);
/// The same, when its work is done.
void let_end(CUstream_st* stream);
/// Puts work into a stream, or into the graph that it is captured into.
cudaError_t put(CUstream_st* stream, Work work);
/// Has a stream go on by one work, drawn by lot among those that can. False where none can; `awaits_others`: some wait for other processes.
bool go_on(bool* awaits_others);
/// Has streams go on until something has happened.
void go_on_until(const std::function<bool()>& done);
void finish(CUstream_st& stream);
/// Does work that has not run yet touch this?
bool is_awaited(const Touch& touch);
/// The error of whatever waits, where there is a problem.
cudaError_t fault();
/// What CUDA does not allow while anything is captured: then the capture is lost.
bool refused_by_capture();
cudaError_t allocate(void** pointer, size_t bytes, bool device);
/// It waits for the GPU first, as CUDA does.
cudaError_t release(void* pointer, bool device);

inline Touch touch_of(const void* memory, size_t bytes, bool writes, bool dense = true) {
  const auto begin = reinterpret_cast<uintptr_t>(memory);
  return {begin, begin + bytes, writes, dense};
}

}  // namespace titan::cuda::host
