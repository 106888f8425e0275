// The calls of the CUDA runtime, each as NVIDIA's documentation of it says.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "../../failure.h"
#include "machine.h"

using namespace titan;
using namespace titan::cuda::host;

namespace {

/// FNV-1a.
uint64_t hash_of(const void* memory, size_t bytes) {
  uint64_t hash = 14695981039346656037u;
  for (size_t i = 0; i < bytes; i++) hash = (hash ^ static_cast<const unsigned char*>(memory)[i]) * 1099511628211u;
  return hash;
}

/// Of each process, which plays the one that it uses: those that it sees, or 8.
int number_of_devices() {
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (!visible) return 8;
  return *visible ? 1 + static_cast<int>(std::count(visible, visible + std::strlen(visible), ',')) : 0;
}

constexpr int GREATEST_PRIORITY = -5;

cudaError_t fail_if(bool fails, cudaError_t otherwise) { return fails ? cudaErrorUnknown : otherwise; }

}  // namespace

int& titan::cuda::host::gpu_of_thread() {
  static thread_local int gpu = 0;
  return gpu;
}

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  const Entered entered(__func__);
  *count = number_of_devices();
  return fail_if(entered.fails, cudaSuccess);
}

cudaError_t cudaSetDevice(int device) {
  const Entered entered(__func__);
  if (entered.fails || device < 0 || device >= number_of_devices()) return fail_if(entered.fails, cudaErrorInvalidDevice);
  gpu_of_thread() = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  const Entered entered(__func__);
  *device = gpu_of_thread();
  return fail_if(entered.fails, cudaSuccess);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* prop, int device) {
  const Entered entered(__func__);
  if (entered.fails || device < 0 || device >= number_of_devices()) return cudaErrorInvalidDevice;
  *prop = {};
  copy_text(prop->name, "a GPU played on the CPU");
  prop->totalGlobalMem = runtime().play.memory_bytes;
  prop->major = 9;
  prop->multiProcessorCount = 4;
  return cudaSuccess;
}

/// 1 GHz, and memory of 64 bits at 1 GHz, for sm_90.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attr, int device) {
  const Entered entered(__func__);
  if (entered.fails || device < 0 || device >= number_of_devices()) return cudaErrorInvalidDevice;
  switch (attr) {
    case cudaDevAttrComputeCapabilityMajor: return *value = 9, cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: return *value = 0, cudaSuccess;
    case cudaDevAttrGlobalMemoryBusWidth: return *value = 64, cudaSuccess;
    default: return *value = 1000000, cudaSuccess;
  }
}

/// All reach each other, by a link without atomics.
cudaError_t cudaDeviceGetP2PAttribute(int* value, cudaDeviceP2PAttr attr, int one, int other) {
  const Entered entered(__func__);
  if (entered.fails || one == other || std::min(one, other) < 0 || std::max(one, other) >= number_of_devices()) return cudaErrorInvalidDevice;
  *value = attr == cudaDevP2PAttrAccessSupported;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const Entered entered(__func__);
  *total = runtime().play.memory_bytes;
  *free = *total - std::min<size_t>(*total, runtime().device_bytes);
  return fail_if(entered.fails, cudaSuccess);
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  const Entered entered(__func__);
  return entered.fails ? cudaErrorMemoryAllocation : allocate(pointer, bytes, true);
}

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  const Entered entered(__func__);
  return entered.fails ? cudaErrorMemoryAllocation : allocate(pointer, bytes, false);
}

cudaError_t cudaFree(void* pointer) {
  const Entered entered(__func__);
  return fail_if(entered.fails, release(pointer, true));
}

cudaError_t cudaFreeHost(void* pointer) {
  const Entered entered(__func__);
  return fail_if(entered.fails, release(pointer, false));
}

/// CUDA, API synchronization behavior: a copy of memory that is not pinned may be done when the call returns, or later. Here it is done later.
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const Entered entered(__func__);
  if (entered.fails) return cudaErrorUnknown;
  if (!bytes) return cudaSuccess;
  const auto is_known = [&](const void* memory) { return find(reinterpret_cast<uintptr_t>(memory), reinterpret_cast<uintptr_t>(memory) + bytes) != nullptr; };
  const bool to_gpu = kind == cudaMemcpyHostToDevice, to_host = kind == cudaMemcpyDeviceToHost;
  const bool unpinned = (to_gpu && !is_known(from)) || (to_host && !is_known(to));
  if (unpinned && refused_by_capture()) return cudaErrorStreamCaptureUnsupported;
  std::vector<Touch> touches;
  if (!unpinned || to_host) touches.push_back(touch_of(from, bytes, false));
  if (!unpinned || to_gpu) touches.push_back(touch_of(to, bytes, true));
  if (to_host && !stream->capture && !is_awaited(touch_of(to, bytes, true))) std::memset(to, POISON, bytes);
  const uint64_t hash = to_gpu ? hash_of(from, bytes) : 0;
  const auto copy = [=]() -> std::string {
    if (to_gpu && hash_of(from, bytes) != hash) return "the host has changed what is copied meanwhile";
    std::memcpy(to, from, bytes);
    return "";
  };
  return put(stream, {to_gpu ? "a copy to the GPU" : "a copy from the GPU", copy, touches, nullptr, nullptr});
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  const Entered entered(__func__);
  if (entered.fails) return cudaErrorUnknown;
  return put(stream, {"memset", [=] { return std::memset(to, value, bytes), std::string(); }, {touch_of(to, bytes, true)}, nullptr, nullptr});
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const Entered entered(__func__);
  if (entered.fails) return cudaErrorUnknown;
  runtime().live_streams++;
  *stream = make_stream();
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  const Entered entered(__func__);
  *least = 0, *greatest = GREATEST_PRIORITY;
  return fail_if(entered.fails, cudaSuccess);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  const cudaError_t error = cudaStreamCreateWithFlags(stream, flags);
  if (error == cudaSuccess) (*stream)->priority = std::clamp(priority, GREATEST_PRIORITY, 0);
  return error;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Entered entered(__func__);
  destroy(stream);
  runtime().live_streams--;
  return fail_if(entered.fails, cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Entered entered(__func__);
  if (entered.fails) return cudaErrorUnknown;
  if (refused_by_capture()) return cudaErrorStreamCaptureUnsupported;
  if (runtime().played.host_waits++ == runtime().play.forgets_host_wait) return cudaSuccess;
  finish(*stream);
  join(runtime().host, stream->clock);
  return fault();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Entered entered(__func__);
  if (entered.fails) return cudaErrorUnknown;
  if (runtime().played.waits++ == runtime().play.forgets_wait || !event->record) return cudaSuccess;
  if (CUgraph_st* capture = event->record->capture; capture != stream->capture) {
    if (!capture || stream->capture) {
      (capture ? capture : stream->capture)->invalid = true;
      return cudaErrorStreamCaptureIsolation;
    }
    stream->capture = capture;  // it forks
    capture->streams.push_back(stream);
  }
  return put(stream, {"a wait", nullptr, {}, event->record, nullptr});
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const Entered entered(__func__);
  if (entered.fails) return cudaErrorUnknown;
  if (stream->capture) return cudaErrorIllegalState;
  stream->capture = new CUgraph_st{stream, {}, {stream}};
  runtime().graphs++;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Entered entered(__func__);
  CUgraph_st* capture = stream->capture;
  *graph = nullptr;
  if (!capture) return cudaErrorIllegalState;
  cudaError_t error = capture->invalid ? cudaErrorStreamCaptureInvalidated : fail_if(entered.fails, cudaSuccess);
  for (CUstream_st* fork : capture->streams) {
    fork->capture = nullptr;
    if (error == cudaSuccess && at(stream->clock, fork->number) < at(fork->clock, fork->number)) error = cudaErrorStreamCaptureUnjoined;
  }
  if (error == cudaSuccess) return *graph = capture, cudaSuccess;
  delete capture;
  runtime().graphs--;
  return error;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  const Entered entered(__func__);
  if (entered.fails) return cudaErrorUnknown;
  *event = new CUevent_st{!(flags & cudaEventDisableTiming), nullptr};
  runtime().events++;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Entered entered(__func__);
  delete event;
  runtime().events--;
  return fail_if(entered.fails, cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Entered entered(__func__);
  if (entered.fails) return cudaErrorUnknown;
  if (event->gpu != stream->gpu) return cudaErrorInvalidResourceHandle;
  event->record = std::make_shared<Record>();
  return put(stream, {"an event", nullptr, {}, nullptr, event->record});
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Entered entered(__func__);
  if (entered.fails) return cudaErrorUnknown;
  if (refused_by_capture()) return cudaErrorStreamCaptureUnsupported;
  if (runtime().played.host_waits++ == runtime().play.forgets_host_wait || !event->record) return cudaSuccess;
  go_on_until([&] { return event->record->done; });
  join(runtime().host, event->record->clock);
  return fault();
}

/// Streams go on meanwhile, by some works or none. The CUDA Programming Guide has cudaErrorNotReady be no last error; NCCL takes it away all the same.
/// Asked again and again, it is one call: how often depends on other processes. It fails, where it is to, at one of these times, the last at the latest.
cudaError_t cudaEventQuery(cudaEvent_t event) {
  auto& r = runtime();
  const std::lock_guard lock(r.mutex);
  if (refused_by_capture()) return cudaErrorStreamCaptureUnsupported;
  if (!event->record) return fail_if(Entered(__func__).fails, cudaSuccess);
  Record& record = *event->record;
  if (!std::exchange(record.asked, true)) record.forgotten = r.played.host_waits++ == r.play.forgets_host_wait, record.fails = Entered(__func__).fails;
  if (record.fails && (record.done || r.random() % 2)) return record.fails = false, cudaErrorUnknown;
  if (record.forgotten) return cudaSuccess;
  bool awaits_others = false, goes_on = true;
  for (uint64_t works = r.random() % 3; works && goes_on && !record.done; works--) goes_on = go_on(&awaits_others);
  if (!goes_on && !awaits_others && !record.done) complain("what the host waits for never comes");
  if (const cudaError_t error = fault(); error != cudaSuccess) return error;
  if (!record.done || record.fails) return r.last = cudaErrorNotReady;
  join(r.host, record.clock);
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  const Entered entered(__func__);
  if (!start->timed || !end->timed || !start->record || !end->record) return cudaErrorInvalidResourceHandle;
  if (!start->record->done || !end->record->done) return cudaErrorNotReady;
  *milliseconds = static_cast<float>(end->record->milliseconds - start->record->milliseconds);
  return fail_if(entered.fails, cudaSuccess);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags) {
  const Entered entered(__func__);
  if (entered.fails) return cudaErrorUnknown;
  if (!(flags & cudaGraphInstantiateFlagUseNodePriority) && std::any_of(graph->streams.begin(), graph->streams.end(), [&](const CUstream_st* stream) { return stream->priority != graph->origin->priority; }))
    complain("a graph of streams with different priorities is made without them");
  *exec = new CUgraphExec_st{graph->works, {}};
  for (size_t i = 1; i < graph->streams.size(); i++) (*exec)->branches.push_back(make_stream());
  runtime().graphs++;
  return cudaSuccess;
}

/// Its works run in their order where one stream had them or an event orders them, each held against memory as by itself.
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const Entered entered(__func__);
  if (entered.fails) return cudaErrorUnknown;
  runtime().played.graph_launches++;
  std::map<const Record*, std::shared_ptr<Record>> records;  // of this launch
  for (const Work& captured : exec->works) {
    Work work = captured;
    work.captured_from = nullptr;
    if (work.records) work.records = records[captured.records.get()] = std::make_shared<Record>();
    if (work.waits) work.waits = records[captured.waits.get()];
    if (const cudaError_t error = put(work.branch ? exec->branches[work.branch - 1] : stream, std::move(work)); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const Entered entered(__func__);
  delete graph;
  runtime().graphs--;
  return fail_if(entered.fails, cudaSuccess);
}

/// One that still runs goes when it has ended.
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  const Entered entered(__func__);
  for (CUstream_st* branch : exec->branches) let_end(branch);
  delete exec;
  runtime().graphs--;
  return fail_if(entered.fails, cudaSuccess);
}

cudaError_t cudaGetLastError(void) {
  if (cudaError_t& last = runtime().last; last == cudaErrorNotReady) return std::exchange(last, cudaSuccess);  // part of asking an event again
  const Entered entered(__func__);
  return fail_if(entered.fails, std::exchange(runtime().last, cudaSuccess));
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorInvalidKernelImage: return "cudaErrorInvalidKernelImage";
    case cudaErrorSymbolNotFound: return "cudaErrorSymbolNotFound";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureUnjoined: return "cudaErrorStreamCaptureUnjoined";
    case cudaErrorStreamCaptureIsolation: return "cudaErrorStreamCaptureIsolation";
    default: return "cudaErrorUnknown";
  }
}

const char* cudaGetErrorString(cudaError_t error) {
  auto& r = runtime();
  std::lock_guard lock(r.mutex);
  return error == cudaErrorLaunchFailure ? r.played.problem.c_str() : error == cudaErrorMemoryAllocation ? "out of memory" : "a call failed";
}
}
