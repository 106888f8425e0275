// What the engine has of a GPU, each given back by whoever owns it: memory, streams, events, graphs. A call that fails is a Failure.
#pragma once
#include <cstdint>
#include <memory>
#include <utility>

#include "../failure.h"
#include "api.h"

namespace titan::cuda {

/// Behind a fault of a kernel, which is told later.
constexpr const char* NAME_IT = "; fix: CUDA_LAUNCH_BLOCKING=1 in the environment of a new run, which is slower, and names the instruction";

/// Throws unless a call of the runtime went well. `fix` stands behind it: "; fix: ...".
inline void check(cudaError_t error, const char* what, const char* fix = "") {
  if (error == cudaSuccess) return;
  const titan_status status = error == cudaErrorMemoryAllocation ? TITAN_STATUS_OUT_OF_MEMORY : TITAN_STATUS_INTERNAL;
  throw Failure(status, text("the GPU failed in ", what, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")", fix));
}
#define TITAN_CUDA_CHECK(call) ::titan::cuda::check(call, #call)

/// Has everything before the event ended? The answer that it has not may stay as the runtime's last error, and launches are asked for that: it is taken away.
inline bool is_done(cudaEvent_t event, const char* what) {
  const cudaError_t state = cudaEventQuery(event);
  if (state == cudaSuccess) return true;
  if (state != cudaErrorNotReady) check(state, what, NAME_IT);
  if (const cudaError_t last = cudaGetLastError(); last != cudaErrorNotReady) check(last, what, NAME_IT);
  return false;
}

/// A handle that somebody else made, and which is given back once. What goes wrong then has been told before, or harms nobody any more.
template <class Handle, auto give_back> class Owned {
 public:
  Owned() = default;
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Owned() {
    if (handle_) (void)give_back(handle_);
  }
  Handle get() const { return handle_; }
  explicit operator bool() const { return handle_ != nullptr; }
  /// Where a call writes a new one.
  Handle* slot() { return &handle_; }

 private:
  Handle handle_ = nullptr;
};

using Stream = Owned<cudaStream_t, cudaStreamDestroy>;
using Event = Owned<cudaEvent_t, cudaEventDestroy>;
using Graph = Owned<cudaGraph_t, cudaGraphDestroy>;
using GraphExec = Owned<cudaGraphExec_t, cudaGraphExecDestroy>;
using DeviceMemory = Owned<void*, cudaFree>;
using PinnedMemory = Owned<void*, cudaFreeHost>;
/// Device memory of whichever allocator.
using Arena = std::unique_ptr<void, void (*)(void*)>;

/// It does not wait for the default stream, nor that for it.
inline Stream make_stream() {
  Stream stream;
  TITAN_CUDA_CHECK(cudaStreamCreateWithFlags(stream.slot(), cudaStreamNonBlocking));
  return stream;
}

/// Its kernels begin before those of other streams that have not begun. It is for collectives, which other GPUs wait for: behind a large product they would
/// not find room until all of that has begun.
inline Stream make_urgent_stream() {
  int least = 0, greatest = 0;
  TITAN_CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  Stream stream;
  TITAN_CUDA_CHECK(cudaStreamCreateWithPriority(stream.slot(), cudaStreamNonBlocking, greatest));
  return stream;
}

inline Event make_event(unsigned flags = cudaEventDisableTiming) {
  Event event;
  TITAN_CUDA_CHECK(cudaEventCreateWithFlags(event.slot(), flags));
  return event;
}

inline DeviceMemory make_device_memory(uint64_t bytes) {
  DeviceMemory memory;
  if (bytes) TITAN_CUDA_CHECK(cudaMalloc(memory.slot(), bytes));
  return memory;
}

/// Of this process, from which the GPU copies by itself.
inline PinnedMemory make_pinned_memory(uint64_t bytes) {
  PinnedMemory memory;
  if (bytes) TITAN_CUDA_CHECK(cudaHostAlloc(memory.slot(), bytes, cudaHostAllocDefault));
  return memory;
}

}  // namespace titan::cuda
