// A kernel that the played NVRTC compiled: what a cudaKernel_t is where the runtime is played.
#pragma once
#include <cstddef>

namespace titan::cuda::host {

struct Place;
/// How it learns where it runs, and reports accesses: nvrtc_builtin.h has the same.
struct Hooks {
  const Place* place;
  void (*accessed)(const void*, size_t, bool writes);
};
struct PlayedKernel {
  void* function;
  Hooks* hooks;
};

}  // namespace titan::cuda::host
