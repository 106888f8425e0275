// The played CUDA runtime notices what a GPU would leave to chance, and refuses what CUDA does.
#include <cstring>

#include "../cuda/api.h"
#include "../cuda/host/machine.h"
#include "test.h"

using namespace titan;
using namespace titan::cuda::host;

namespace {

constexpr size_t BYTES = 64;

/// Two streams, an event, and memory on both sides; what a case leaves behind is given back.
struct Gpu {
  cudaStream_t a = nullptr, b = nullptr;
  cudaEvent_t event = nullptr;
  void *memory = nullptr, *pinned = nullptr;
  Gpu() {
    play({});
    cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    cudaMalloc(&memory, BYTES);
    cudaHostAlloc(&pinned, BYTES, cudaHostAllocDefault);
    std::memset(pinned, 1, BYTES);
  }
  ~Gpu() {
    cudaFree(memory);
    cudaFreeHost(pinned);
    cudaEventDestroy(event);
    cudaStreamDestroy(a);
    cudaStreamDestroy(b);
    EXPECT(left() == 0);
  }
  cudaError_t up(cudaStream_t stream) const { return cudaMemcpyAsync(memory, pinned, BYTES, cudaMemcpyHostToDevice, stream); }
  cudaError_t down(cudaStream_t stream) const { return cudaMemcpyAsync(pinned, memory, BYTES, cudaMemcpyDeviceToHost, stream); }
};

/// A kernel that reads or writes a place, as the table of kernels would launch it.
void launch(cudaStream_t stream, void* memory, bool writes) {
  const Tensor tensor = {memory, DType::f32, 1, {BYTES / 4}, {1}};
  const Submitting submitting(Call{&tensor, 1, nullptr, 0, 0, 1}, writes ? 0 : 1, "a kernel of the test");
  submit(stream, [] { return std::string(); });
}

bool noticed(const char* part) {
  const bool found = played().problem.find(part) != std::string::npos;
  if (!found) std::printf("the problem is \"%s\", expected \"%s\"\n", played().problem.c_str(), part);
  return found;
}

void an_event_that_nobody_waits_for_is_noticed() {
  for (const bool waits : {false, true}) {
    const Gpu gpu;
    gpu.up(gpu.a);
    cudaEventRecord(gpu.event, gpu.a);
    if (waits) cudaStreamWaitEvent(gpu.b, gpu.event, 0);
    launch(gpu.b, gpu.memory, false);
    EXPECT((cudaStreamSynchronize(gpu.b) == cudaSuccess) == waits);
    EXPECT(waits ? played().problem.empty() : noticed("a kernel of the test reads what a copy to the GPU writes on another stream"));
  }
}

void an_event_that_is_recorded_too_early_is_noticed() {
  const Gpu gpu;
  cudaEventRecord(gpu.event, gpu.a);
  gpu.up(gpu.a);
  cudaStreamWaitEvent(gpu.b, gpu.event, 0);
  launch(gpu.b, gpu.memory, true);
  EXPECT(noticed("a kernel of the test writes what a copy to the GPU writes on another stream"));
}

void the_host_has_to_wait_for_results_in_memory_of_either_kind() {
  for (const bool waits : {false, true}) {
    unsigned char unpinned[BYTES] = {};
    const Gpu gpu;
    gpu.up(gpu.a);
    cudaStreamSynchronize(gpu.a);
    gpu.down(gpu.a);
    cudaMemcpyAsync(unpinned, gpu.memory, BYTES, cudaMemcpyDeviceToHost, gpu.a);
    if (waits) cudaStreamSynchronize(gpu.a);
    EXPECT(*static_cast<unsigned char*>(gpu.pinned) == (waits ? 1 : 0xff) && unpinned[0] == (waits ? 1 : 0xff));
  }
}

void memory_of_the_host_may_not_change_under_a_copy() {
  for (const bool pinned : {false, true}) {
    unsigned char unpinned[BYTES] = {};
    const Gpu gpu;
    if (pinned) gpu.up(gpu.a);
    else cudaMemcpyAsync(gpu.memory, unpinned, BYTES, cudaMemcpyHostToDevice, gpu.a);
    std::memset(pinned ? gpu.pinned : unpinned, 2, BYTES);
    EXPECT(cudaStreamSynchronize(gpu.a) == cudaErrorLaunchFailure && noticed("the host has changed what is copied meanwhile"));
  }
}

void memory_that_was_freed_is_not_used() {
  const Gpu gpu;
  void* other = nullptr;
  cudaMalloc(&other, BYTES);
  cudaMemsetAsync(other, 0, BYTES, gpu.a);
  cudaFree(other);
  launch(gpu.a, other, false);
  EXPECT(cudaStreamSynchronize(gpu.a) == cudaErrorLaunchFailure && noticed("a kernel of the test is given memory that was freed"));
}

void memory_that_never_was_is_not_used() {
  const Gpu gpu;
  launch(gpu.a, static_cast<char*>(gpu.memory) + 4, true);
  EXPECT(cudaStreamSynchronize(gpu.a) == cudaErrorLaunchFailure && noticed("a kernel of the test is given memory that was never allocated"));
}

void memory_that_nobody_has_written_is_not_read() {
  const Gpu gpu;
  cudaMemsetAsync(gpu.memory, 0, BYTES - 4, gpu.a);
  launch(gpu.a, gpu.memory, false);
  EXPECT(cudaStreamSynchronize(gpu.a) == cudaErrorLaunchFailure && noticed("a kernel of the test reads memory that nobody has written"));
}

void what_is_given_back_twice_is_noticed() {
  const Gpu gpu;
  void* other = nullptr;
  cudaMalloc(&other, BYTES);
  cudaFree(other);
  EXPECT(cudaFree(other) == cudaErrorInvalidValue && noticed("memory is freed that is not there"));
}

/// What a capture with something in it ends with, and what that something was told.
template <class Body> std::pair<cudaError_t, cudaError_t> capture_with(const Gpu& gpu, Body body) {
  EXPECT(cudaStreamBeginCapture(gpu.a, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  const cudaError_t told = body();
  cudaGraph_t graph = nullptr;
  const cudaError_t end = cudaStreamEndCapture(gpu.a, &graph);
  EXPECT((graph != nullptr) == (end == cudaSuccess));
  if (graph) cudaGraphDestroy(graph);
  return {told, end};
}

void what_cuda_does_not_capture_loses_the_capture() {
  const Gpu gpu;
  void* other = nullptr;
  char unpinned[BYTES] = {};
  const std::pair refused{cudaErrorStreamCaptureUnsupported, cudaErrorStreamCaptureInvalidated};
  EXPECT(capture_with(gpu, [&] { return cudaMalloc(&other, BYTES); }) == refused);
  EXPECT(capture_with(gpu, [&] { return cudaFree(gpu.memory); }) == refused);
  EXPECT(capture_with(gpu, [&] { return cudaStreamSynchronize(gpu.a); }) == refused);
  EXPECT(capture_with(gpu, [&] { return cudaEventSynchronize(gpu.event); }) == refused);
  EXPECT(capture_with(gpu, [&] { return cudaMemcpyAsync(gpu.memory, unpinned, BYTES, cudaMemcpyHostToDevice, gpu.a); }) == refused);
  EXPECT(capture_with(gpu, [&] { return cudaStreamBeginCapture(gpu.a, cudaStreamCaptureModeThreadLocal); }) == std::pair(cudaErrorIllegalState, cudaSuccess));
  EXPECT(capture_with(gpu, [&] { return gpu.up(gpu.a); }) == std::pair(cudaSuccess, cudaSuccess));
}

void an_event_from_outside_is_not_waited_for_in_a_capture() {
  const Gpu gpu;
  cudaEventRecord(gpu.event, gpu.b);
  EXPECT(capture_with(gpu, [&] { return cudaStreamWaitEvent(gpu.a, gpu.event, 0); }) == std::pair(cudaErrorStreamCaptureIsolation, cudaErrorStreamCaptureInvalidated));
}

void a_fork_that_does_not_join_is_refused() {
  for (const bool joins : {false, true}) {
    const Gpu gpu;
    const auto [told, end] = capture_with(gpu, [&] {
      cudaEventRecord(gpu.event, gpu.a);
      cudaStreamWaitEvent(gpu.b, gpu.event, 0);
      const cudaError_t error = gpu.up(gpu.b);
      if (joins) cudaEventRecord(gpu.event, gpu.b), cudaStreamWaitEvent(gpu.a, gpu.event, 0);
      return error;
    });
    EXPECT(told == cudaSuccess && end == (joins ? cudaSuccess : cudaErrorStreamCaptureUnjoined));
  }
}

void what_was_captured_runs_when_it_is_launched_and_not_before() {
  const Gpu gpu;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cudaMemsetAsync(gpu.memory, 5, BYTES, gpu.a);
  cudaStreamBeginCapture(gpu.a, cudaStreamCaptureModeThreadLocal);
  cudaMemsetAsync(gpu.memory, 7, BYTES, gpu.a);
  cudaStreamEndCapture(gpu.a, &graph);
  cudaGraphInstantiate(&exec, graph, 0);
  for (const int expected : {5, 7}) {
    if (expected == 7) cudaGraphLaunch(exec, gpu.a);
    gpu.down(gpu.a);
    EXPECT(cudaStreamSynchronize(gpu.a) == cudaSuccess && *static_cast<unsigned char*>(gpu.pinned) == expected);
  }
  cudaGraphDestroy(graph);
  cudaGraphExecDestroy(exec);
}

void a_thread_that_uses_another_gpu_is_noticed() {
  const Gpu gpu;
  cudaSetDevice(1);
  launch(gpu.a, gpu.memory, true);
  EXPECT(cudaGetLastError() == cudaErrorInvalidResourceHandle);
  cudaEvent_t event = nullptr;
  cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  EXPECT(cudaEventRecord(event, gpu.a) == cudaErrorInvalidResourceHandle);
  cudaEventDestroy(event);
  void* other = nullptr;
  cudaMalloc(&other, BYTES);
  cudaSetDevice(0);
  cudaFree(other);
  EXPECT(noticed("memory is freed by a thread that uses another GPU"));
}

void streams_go_on_in_either_order_where_nothing_orders_them() {
  bool seen[2] = {};
  for (uint64_t seed = 1; seed <= 20; seed++) {
    const Gpu gpu;
    play({.seed = seed});
    int first = -1;
    for (const int which : {0, 1}) submit(which ? gpu.b : gpu.a, [&first, which] { return first = first < 0 ? which : first, std::string(); });
    cudaStreamSynchronize(gpu.a);
    cudaStreamSynchronize(gpu.b);
    seen[first] = true;
  }
  EXPECT(seen[0] && seen[1]);
}

}  // namespace

int main() {
  an_event_that_nobody_waits_for_is_noticed();
  an_event_that_is_recorded_too_early_is_noticed();
  the_host_has_to_wait_for_results_in_memory_of_either_kind();
  memory_of_the_host_may_not_change_under_a_copy();
  memory_that_was_freed_is_not_used();
  memory_that_never_was_is_not_used();
  memory_that_nobody_has_written_is_not_read();
  what_is_given_back_twice_is_noticed();
  what_cuda_does_not_capture_loses_the_capture();
  an_event_from_outside_is_not_waited_for_in_a_capture();
  a_fork_that_does_not_join_is_refused();
  what_was_captured_runs_when_it_is_launched_and_not_before();
  a_thread_that_uses_another_gpu_is_noticed();
  streams_go_on_in_either_order_where_nothing_orders_them();
  return titan::test::finish("cuda_runtime");
}
