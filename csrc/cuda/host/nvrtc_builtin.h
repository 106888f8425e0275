// What NVRTC knows without any header, for the host compiler, and what it reports to the emulator, whose addresses are set at each launch. Compiled in
// front of each source, as C++ with -fsanitize=thread and without a header of its own.
using size_t = decltype(sizeof(0));

#define __CUDACC_RTC__ 1
#define __CUDACC__ 1
#define __global__ __attribute__((visibility("default")))
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__

extern "C" {
float expf(float);
float logf(float);
float sqrtf(float);
float tanhf(float);
float fabsf(float);
double exp(double);
double log(double);
double sqrt(double);
double tanh(double);
double fabs(double);
}

struct dim3 {
  unsigned x, y, z;
};

namespace titan::cuda::host {

struct Place {
  dim3 thread, block, block_size, grid_size;
  unsigned lane;
};
/// As in played_kernel.h.
struct Hooks {
  const Place* place;
  void (*accessed)(const void*, size_t, bool writes);
};
extern "C" __attribute__((visibility("default"))) Hooks titan_hooks;
Hooks titan_hooks;

__attribute__((no_sanitize("thread"), noinline)) static const Place& place() { return *titan_hooks.place; }

}  // namespace titan::cuda::host

#define threadIdx (titan::cuda::host::place().thread)
#define blockIdx (titan::cuda::host::place().block)
#define blockDim (titan::cuda::host::place().block_size)
#define gridDim (titan::cuda::host::place().grid_size)

#define HOOK(name) extern "C" __attribute__((no_sanitize("thread"), visibility("hidden"))) void name
#define ACCESS(bytes)                                                                           \
  HOOK(__tsan_read##bytes)(void* at) { titan::cuda::host::titan_hooks.accessed(at, bytes, false); }        \
  HOOK(__tsan_write##bytes)(void* at) { titan::cuda::host::titan_hooks.accessed(at, bytes, true); }      \
  HOOK(__tsan_unaligned_read##bytes)(void* at) { titan::cuda::host::titan_hooks.accessed(at, bytes, false); } \
  HOOK(__tsan_unaligned_write##bytes)(void* at) { titan::cuda::host::titan_hooks.accessed(at, bytes, true); }
ACCESS(1) ACCESS(2) ACCESS(4) ACCESS(8) ACCESS(16)
HOOK(__tsan_read_range)(void* at, size_t bytes) { titan::cuda::host::titan_hooks.accessed(at, bytes, false); }
HOOK(__tsan_write_range)(void* at, size_t bytes) { titan::cuda::host::titan_hooks.accessed(at, bytes, true); }
HOOK(__tsan_init)() {}
HOOK(__tsan_func_entry)(void*) {}
HOOK(__tsan_func_exit)() {}
#undef ACCESS
#undef HOOK
