// CUDA's kernel language for the host compiler: the sources of csrc/cuda/ops, compiled as C++ with -fsanitize=thread, run on CPUs in tests.
//
// Blocks run one after another, the threads of a block as fibers on one thread of the process. A __shared__ array is a static one, of which the
// running block is the only user. The compiler reports each access to memory by a call (__tsan_read4 and so on), as for its thread sanitizer, whose
// library is not linked: the emulator answers these calls itself. It refuses, once and for the whole launch,
//   an access outside of the call's operands, the kernel's parameters, constants, shared memory and the thread's own stack
//   a race: two threads touch a place, one writes, and no barrier is between (for threads of two blocks: in one launch)
//   a read of shared memory that the block has not written
//   any access to where an asynchronous copy is under way, a source that changes meanwhile, and a thread that ends before its copies have arrived
//   a barrier or a warp's exchange that some threads never reach, or that they reach in different places
//   dynamic shared memory beyond what a launch asks for, and a launch that asks for more than its kernel may have
// Races are found on granules of two bytes; single bytes are held against bounds alone. What a warp's __syncwarp orders counts as ordered in that warp.
// Linux alone (ucontext, dl_iterate_phdr). One launch runs at a time.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#include "../../backend.h"
#include "api.h"

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace titan::cuda::host {

/// What the running thread is told about itself.
struct Place {
  dim3 thread, block, block_size, grid_size;
  unsigned lane;
};
extern Place place;

struct Range {
  const void* data;
  size_t bytes;
};

/// Dynamic shared memory that any launch may ask for, and after cudaFuncSetAttribute: the least of all devices that run code for sm_80 (CUDA C++
/// Programming Guide, Technical Specifications per Compute Capability: 8.6 and 8.9).
constexpr unsigned USUAL_SHARED_BYTES = 48 << 10, MOST_SHARED_BYTES = 99 << 10;
extern char dynamic_shared_memory[MOST_SHARED_BYTES];

/// What a launch is besides its body. `caller` names it in messages.
struct Launch {
  dim3 grid, block;
  unsigned shared_bytes;
  const void* kernel;
  const char* caller;
};
/// Runs `body(context)` as each thread of each block.
void launch(const Launch& launch, const Call& call, const Range* parameters, int num_parameters, void (*body)(const void*), const void* context);

/// Where the CUDA runtime is played too: puts a launch into a stream, and is told what was refused. Else null, and launches run at once.
extern void (*defer)(void* stream, std::function<std::string()> launch);

/// Has a launch run its last block alone? So calls of real sizes can be looked at, over memory that is hardly there.
extern bool last_block_alone;

/// What was refused since this was last asked, "" if nothing: the first complaint alone.
std::string take_error();

/// What a kernel that was compiled from its source tells of itself.
void accessed(const void* at, size_t bytes, bool writes);

/// Waits for all threads of the block. @returns whether any of them voted so.
bool barrier(bool vote, const char* file, int line);
void warp_barrier(const char* file, int line);
/// Gives `own` to the warp, and gets that of all lanes, one after another.
void exchange(unsigned mask, const void* own, size_t bytes, void* all, const char* file, int line);
constexpr size_t MOST_EXCHANGED_BYTES = 24;
/// An access to shared memory that the compiler does not see: refused as any other, and where the place is elsewhere or no multiple of `alignment`.
void touch_shared(const void* at, size_t bytes, size_t alignment, bool writes);

template <class T>
void exchange(unsigned mask, const T& own, T (&all)[32], const char* file, int line) {
  static_assert(sizeof(T) <= MOST_EXCHANGED_BYTES);
  exchange(mask, &own, sizeof(T), all, file, line);
}
template <class T>
T shuffle(unsigned mask, T value, unsigned from, const char* file, int line) {
  T all[32];
  exchange(mask, value, all, file, line);
  return from < 32 ? all[from] : value;
}

}  // namespace titan::cuda::host

#define threadIdx (titan::cuda::host::place.thread)
#define blockIdx (titan::cuda::host::place.block)
#define blockDim (titan::cuda::host::place.block_size)
#define gridDim (titan::cuda::host::place.grid_size)

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { titan::cuda::host::barrier(false, file, line); }
inline int __syncthreads_or(int vote, const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return titan::cuda::host::barrier(vote != 0, file, line); }
inline void __syncwarp(unsigned = ~0u, const char* file = __builtin_FILE(), int line = __builtin_LINE()) { titan::cuda::host::warp_barrier(file, line); }
template <class T>
T __shfl_sync(unsigned mask, T value, int from, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return titan::cuda::host::shuffle(mask, value, unsigned(from) % 32, file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int with, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return titan::cuda::host::shuffle(mask, value, titan::cuda::host::place.lane ^ unsigned(with), file, line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const unsigned lane = titan::cuda::host::place.lane;
  return titan::cuda::host::shuffle(mask, value, lane >= by ? lane - by : lane, file, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const unsigned lane = titan::cuda::host::place.lane;
  return titan::cuda::host::shuffle(mask, value, lane + by < 32 ? lane + by : lane, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int vote, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  bool all[32];
  titan::cuda::host::exchange(mask, vote != 0, all, file, line);
  unsigned votes = 0;
  for (int i = 0; i < 32; i++) votes |= unsigned(all[i]) << i;
  return votes;
}
inline int __any_sync(unsigned mask, int vote, const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return __ballot_sync(mask, vote, file, line) != 0; }
inline int __all_sync(unsigned mask, int vote, const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return __ballot_sync(mask, vote, file, line) == ~0u; }
