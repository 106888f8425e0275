#include "machine.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>
#include <utility>

#include "../../failure.h"

namespace titan::cuda::host {

void join(Clock& into, const Clock& other) {
  into.resize(std::max(into.size(), other.size()));
  for (size_t i = 0; i < other.size(); i++) into[i] = std::max(into[i], other[i]);
}

/// Never destroyed: streams may outlive whatever ends with the process.
Runtime& runtime() {
  static auto& it = *new Runtime;
  return it;
}

void complain(const std::string& what) {
  auto& problem = runtime().played.problem;
  if (!problem.empty()) return;
  problem = what;
  std::fprintf(stderr, "played CUDA runtime: %s\n", what.c_str());
}

Allocation* find(uintptr_t begin, uintptr_t end) {
  auto& memory = runtime().memory;
  auto it = memory.upper_bound(begin);
  if (it == memory.begin()) return nullptr;
  --it;
  return end <= it->first + it->second.bytes ? &it->second : nullptr;
}

namespace {

void mark_written(Allocation& allocation, uintptr_t begin, uintptr_t end) {
  auto& written = allocation.written;
  auto it = written.upper_bound(begin);
  if (it != written.begin() && std::prev(it)->second >= begin) --it;
  while (it != written.end() && it->first <= end) {
    begin = std::min(begin, it->first), end = std::max(end, it->second);
    it = written.erase(it);
  }
  written[begin] = end;
}
bool is_written(const Allocation& allocation, uintptr_t begin, uintptr_t end) {
  auto it = allocation.written.upper_bound(begin);
  return it != allocation.written.begin() && std::prev(it)->second >= end;
}

/// When work is put into a stream: is it in order with all that touches the same places?
void check_order(const CUstream_st& stream, const Work& work) {
  auto& past = runtime().past;
  const Clock& host = runtime().host;
  past.erase(std::remove_if(past.begin(), past.end(), [&](const Past& it) { return it.when <= at(host, it.stream); }), past.end());
  for (const Touch& touch : work.touches) {
    for (const Past& it : past)
      if (it.touch.begin < touch.end && touch.begin < it.touch.end && (it.touch.writes || touch.writes) && it.when > at(stream.clock, it.stream))
        complain(text(work.name, touch.writes ? " writes" : " reads", " what ", it.name, it.touch.writes ? " writes" : " reads", " on another stream, and nothing orders them"));
  }
  for (const Touch& touch : work.touches) past.push_back({touch, stream.number, at(stream.clock, stream.number), work.name});
}

/// When it runs: is its memory there, and is there something in it?
void check_memory(const Work& work) {
  for (const Touch& touch : work.touches) {
    if (touch.begin == touch.end) continue;
    Allocation* allocation = find(touch.begin, touch.end);
    if (!allocation) complain(text(work.name, " is given memory that was never allocated"));
    else if (!allocation->live) complain(text(work.name, " is given memory that was freed"));
    else if (!touch.writes && touch.dense && !is_written(*allocation, touch.begin, touch.end)) complain(text(work.name, " reads memory that nobody has written"));
  }
}

double now_ms() { return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void run_work(const Work& work) {
  check_memory(work);
  if (work.run && runtime().played.problem.empty()) {  // a GPU stops at a fault
    const std::string wrong = work.run();
    if (!wrong.empty()) complain(text(work.name, ": ", wrong));
  }
  for (const Touch& touch : work.touches)
    if (Allocation* allocation = touch.writes ? find(touch.begin, touch.end) : nullptr) mark_written(*allocation, touch.begin, touch.end);
  if (work.records) work.records->done = true, work.records->milliseconds = now_ms();
}

}  // namespace

bool go_on(bool* awaits_others) {
  auto& r = runtime();
  const bool works = r.played.problem.empty();  // a GPU that has a fault waits for nobody
  std::vector<CUstream_st*> ready;
  for (CUstream_st* stream : r.streams) {
    if (!stream || stream->queue.empty()) continue;
    const Work& front = stream->queue.front();
    if (front.waits && !front.waits->done) continue;
    if (!works || !front.ready || front.ready()) ready.push_back(stream);
    else *awaits_others = true;
  }
  if (ready.empty()) return false;
  CUstream_st& stream = *ready[r.random() % ready.size()];
  const Work work = std::move(stream.queue.front());
  stream.queue.pop_front();
  run_work(work);
  if (stream.ends && stream.queue.empty()) destroy(&stream);
  return true;
}

void go_on_until(const std::function<bool()>& done) {
  while (!done()) {
    bool awaits_others = false;
    if (go_on(&awaits_others)) continue;
    if (!awaits_others) return complain("what the host waits for never comes");
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}
void finish(CUstream_st& stream) {
  // One that ends with its work is gone then.
  go_on_until([place = static_cast<size_t>(stream.number) - 1] {
    const CUstream_st* there = runtime().streams[place];
    return !there || there->queue.empty();
  });
}
static void finish_all() {
  for (CUstream_st* stream : runtime().streams)
    if (stream) finish(*stream);
}

bool is_awaited(const Touch& touch) {
  for (const CUstream_st* stream : runtime().streams)
    for (size_t i = 0; stream && i < stream->queue.size(); i++)
      for (const Touch& other : stream->queue[i].touches)
        if (other.begin < touch.end && touch.begin < other.end) return true;
  return false;
}

cudaError_t fault() { return runtime().played.problem.empty() ? cudaSuccess : cudaErrorLaunchFailure; }

CUstream_st* make_stream() {
  auto& streams = runtime().streams;
  streams.push_back(new CUstream_st{static_cast<int>(streams.size()) + 1, {}, {}});
  return streams.back();
}

void destroy(CUstream_st* stream) {
  finish(*stream);
  runtime().streams[static_cast<size_t>(stream->number) - 1] = nullptr;
  delete stream;
}

void let_end(CUstream_st* stream) {
  stream->ends = true;
  if (stream->queue.empty()) destroy(stream);
}

cudaError_t put(CUstream_st* stream, Work work) {
  if (!stream) return cudaErrorInvalidResourceHandle;
  auto& clock = stream->clock;
  join(clock, runtime().host);
  clock.resize(std::max<size_t>(clock.size(), static_cast<size_t>(stream->number) + 1));
  clock[static_cast<size_t>(stream->number)]++;
  if (work.waits) join(clock, work.waits->clock);
  if (work.records) work.records->clock = clock, work.records->capture = stream->capture;
  if (stream->capture) {
    const auto& streams = stream->capture->streams;
    work.branch = static_cast<size_t>(std::find(streams.begin(), streams.end(), stream) - streams.begin());
    stream->capture->works.push_back(std::move(work));
    return cudaSuccess;
  }
  check_order(*stream, work);
  stream->queue.push_back(std::move(work));
  return fault();
}

bool refused_by_capture() {
  bool refused = false;
  for (CUstream_st* stream : runtime().streams)
    if (stream && stream->capture) stream->capture->invalid = refused = true;
  return refused;
}

cudaError_t allocate(void** pointer, size_t bytes, bool device) {
  auto& r = runtime();
  if (refused_by_capture()) return cudaErrorStreamCaptureUnsupported;
  if (device && bytes > r.play.memory_bytes - std::min(r.play.memory_bytes, r.device_bytes)) return cudaErrorMemoryAllocation;
  // Addresses are never used twice, so that one which was kept too long is known.
  void* memory = mmap(nullptr, bytes + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return cudaErrorMemoryAllocation;
  std::memset(memory, POISON, bytes);
  r.memory[reinterpret_cast<uintptr_t>(memory)] = {bytes, device, true, gpu_of_thread(), {}, false};
  r.live_memory++;
  if (device) r.device_bytes += bytes;
  else mark_written(r.memory[reinterpret_cast<uintptr_t>(memory)], reinterpret_cast<uintptr_t>(memory), reinterpret_cast<uintptr_t>(memory) + bytes);  // the host does
  *pointer = memory;
  return cudaSuccess;
}

cudaError_t release(void* pointer, bool device) {
  auto& r = runtime();
  if (refused_by_capture()) return cudaErrorStreamCaptureUnsupported;
  const auto it = r.memory.find(reinterpret_cast<uintptr_t>(pointer));
  if (it == r.memory.end() || !it->second.live || it->second.device != device) return complain("memory is freed that is not there"), cudaErrorInvalidValue;
  if (device && it->second.gpu != gpu_of_thread()) complain("memory is freed by a thread that uses another GPU, on which CUDA would make a context");
  finish_all();
  it->second.live = false;
  r.live_memory--;
  if (device) r.device_bytes -= it->second.bytes;
  madvise(pointer, it->second.bytes + 4096, MADV_DONTNEED);
  mprotect(pointer, it->second.bytes + 4096, PROT_NONE);
  return cudaSuccess;
}

void play(const Play& play) {
  auto& r = runtime();
  std::lock_guard lock(r.mutex);
  r.play = play;
  r.played = {};
  r.random.seed(play.seed);
  r.past.clear();
  r.last = cudaSuccess;
}

Played played() {
  std::lock_guard lock(runtime().mutex);
  return runtime().played;
}

int64_t left() {
  auto& r = runtime();
  std::lock_guard lock(r.mutex);
  return r.events + r.graphs + r.live_streams + r.live_memory + r.communicators + r.descriptors;
}

void submit(void* stream, std::function<std::string()> work) {
  const Entered entered("a launch");
  auto& r = runtime();
  r.played.launches++;
  // CUDA Programming Guide, Stream and Event Behavior: a launch fails where the stream is not of the GPU that the thread uses.
  const bool elsewhere = stream && static_cast<CUstream_st*>(stream)->gpu != gpu_of_thread();
  const cudaError_t error = entered.fails ? cudaErrorUnknown : elsewhere ? cudaErrorInvalidResourceHandle : put(static_cast<CUstream_st*>(stream), {r.submitting, std::move(work), r.touches ? *r.touches : std::vector<Touch>{}, nullptr, nullptr});
  if (error != cudaSuccess) r.last = error;  // stays until it is asked for, whatever goes well meanwhile
}

Submitting::Submitting(const Call& call, int inputs, const char* name) {
  auto& r = runtime();
  r.mutex.lock();
  auto* touches = new std::vector<Touch>;
  for (int i = 0; i < call.num_operands; i++) {
    const Tensor& tensor = call[i];
    if (!tensor.data) continue;
    size_t reach = 1, elements = 1;
    for (int d = 0; d < tensor.rank; d++) {
      elements *= static_cast<size_t>(tensor.dims[d]);
      if (tensor.dims[d]) reach += static_cast<size_t>((tensor.dims[d] - 1) * tensor.strides[d]);
    }
    if (elements) touches->push_back(touch_of(tensor.data, reach * size_of(tensor.dtype), i >= inputs, i < inputs && reach == elements));
  }
  r.touches = touches;
  r.submitting = name;
}

Submitting::~Submitting() {
  auto& r = runtime();
  delete std::exchange(r.touches, nullptr);
  r.submitting = "a kernel";
  r.mutex.unlock();
}

}  // namespace titan::cuda::host
