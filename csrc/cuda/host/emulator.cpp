// Fibers, barriers and exchanges of the emulator, and what it does with each access to memory that the compiler reports.
#undef _FORTIFY_SOURCE  // whose longjmp takes a switch between stacks for a mistake
#include "emulator.h"

#include <link.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "mma.h"
#include "shadow.h"

namespace titan::cuda::host {

Place place;
alignas(128) char dynamic_shared_memory[MOST_SHARED_BYTES];

namespace {

constexpr size_t STACK_BYTES = 256 << 10;
constexpr unsigned MOST_THREADS = 1024;

enum class State { READY, AT_BARRIER, IN_EXCHANGE, ENDED };

struct AsyncCopy {
  char *to, bytes[16];
  const char* from;  // null: zeros
  unsigned group;
};
struct Fiber {
  ucontext_t start;
  jmp_buf at;
  char* stack = nullptr;
  bool begun = false;
  State state;
  uint8_t warp_barriers;
  const char* file;  // where it waits
  int line;
  std::vector<AsyncCopy> copies;  // under way
  unsigned groups;                // of copies, committed
};

struct Warp {
  char slots[2][32 * MOST_EXCHANGED_BYTES];  // of the exchange under way and the one before, which some lanes have not read yet
  unsigned arrived, generation;
  const char* file;
  int line;
};

struct Span {
  uintptr_t begin, end;
  bool contains(uintptr_t address, size_t bytes) const { return address >= begin && address + bytes <= end; }
};

struct Emulator {
  std::mutex one_launch;
  Fiber fibers[MOST_THREADS];
  Warp warps[MOST_THREADS / 32];
  std::vector<Span> operands, parameters, shared, constants;
  Span last_operand, last_shared;
  Shadow shadow;
  jmp_buf scheduler;
  void (*body)(const void*);
  const void* context;
  const char* caller;
  int running = -1;     // which fiber, -1: none
  bool inside = false;  // of the emulator's own code, parts of which the linker may take from where accesses are reported
  unsigned threads, shared_bytes;
  std::map<const void*, int> most_shared;  // of kernels, where cudaFuncSetAttribute said so
  bool vote = false, voted;                // of the barrier that threads are coming to, and of the last one
  uint32_t interval = 0, launch_begin, block_begin;
  uint64_t launches = 0;
  bool failed;
  std::string error;
};
Emulator& emulator() {
  static Emulator* const it = new Emulator;  // never destroyed, as kernels may run until the process ends
  return *it;
}

/// From where a fiber enters the emulator until it goes on with its kernel.
struct Inside {
  Emulator& e;
  explicit Inside(Emulator& e) : e(e) { e.inside = true; }
  ~Inside() { e.inside = false; }
};

std::string text_of(dim3 at) { return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) + ")"; }

void note(Emulator& e, const std::string& complaint) {
  if (!e.failed && e.error.empty()) {
    e.error = std::string("a kernel of ") + e.caller + ": " + complaint;
    std::fprintf(stderr, "%s\n", e.error.c_str());
  }
  e.failed = true;
}
/// Leaves the running fiber until the scheduler comes back to it.
void leave(Emulator& e) {
  Fiber& fiber = e.fibers[e.running];
  if (!_setjmp(fiber.at)) _longjmp(e.scheduler, 1);
  e.inside = true;
}
/// Ends the launch: no fiber runs on.
void fail(Emulator& e, const std::string& complaint) {
  note(e, "thread " + text_of(place.thread) + " of block " + text_of(place.block) + " " + complaint);
  leave(e);
}

void fiber_main() {
  Emulator& e = emulator();
  while (true) {
    e.inside = false;
    e.body(e.context);
    e.inside = true;
    if (!e.fibers[e.running].copies.empty()) fail(e, "ends while a copy of its is under way; expected: a wait for it");
    e.fibers[e.running].state = State::ENDED;
    leave(e);
  }
}

void prepare_fiber(Fiber& fiber) {
  if (!fiber.stack) {
    void* const stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) std::perror("a stack of the emulator"), std::abort();
    fiber.stack = static_cast<char*>(stack);
  }
  fiber.state = State::READY;
  fiber.warp_barriers = 0;
  fiber.groups = 0;
}
void switch_to(Emulator& e, unsigned t) {
  Fiber& fiber = e.fibers[t];
  e.running = int(t);
  place.thread = {t % place.block_size.x, t / place.block_size.x % place.block_size.y, t / place.block_size.x / place.block_size.y};
  place.lane = t % 32;
  if (!_setjmp(e.scheduler)) {
    if (fiber.begun) _longjmp(fiber.at, 1);
    fiber.begun = true;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack;
    fiber.start.uc_stack.ss_size = STACK_BYTES;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, fiber_main, 0);
    setcontext(&fiber.start);
  }
  e.running = -1;
}

/// All threads wait, or some have ended: goes on behind a barrier that all have reached, else says who waits for whom.
void go_on(Emulator& e) {
  unsigned at_barrier = 0, ended = 0;
  const Fiber* waiting = nullptr;
  for (unsigned t = 0; t < e.threads; t++) {
    const Fiber& fiber = e.fibers[t];
    at_barrier += fiber.state == State::AT_BARRIER, ended += fiber.state == State::ENDED;
    if (fiber.state == State::ENDED) continue;
    const bool elsewhere = waiting && fiber.state == waiting->state && fiber.line != waiting->line;
    if (elsewhere) return note(e, "threads of block " + text_of(place.block) + " wait in lines " + std::to_string(waiting->line) + " and " + std::to_string(fiber.line) + " of " + fiber.file + "; expected: all in one place");
    waiting = &fiber;
  }
  if (at_barrier < e.threads)
    return note(e, std::to_string(e.threads - ended) + " of " + std::to_string(e.threads) + " threads of block " + text_of(place.block) + " wait in line " + std::to_string(waiting->line) + " of " + waiting->file +
                       " and " + std::to_string(ended) + " have ended; expected: all threads get there");
  e.interval++;
  e.voted = std::exchange(e.vote, false);
  for (unsigned t = 0; t < e.threads; t++) e.fibers[t].state = State::READY, e.fibers[t].warp_barriers = 0;
}

/// Threads take their turns forwards in one launch and backwards in the next, so that no kernel gets to rely on an order.
void run_block(Emulator& e, bool backwards) {
  e.block_begin = ++e.interval;
  for (unsigned t = 0; t < e.threads; t++) prepare_fiber(e.fibers[t]);
  for (Warp& warp : e.warps) warp.arrived = 0;
  e.vote = false;
  while (!e.failed) {
    bool all_ended = true, moved = false;
    for (unsigned i = 0; i < e.threads && !e.failed; i++) {
      const unsigned t = backwards ? e.threads - 1 - i : i;
      if (e.fibers[t].state == State::READY) switch_to(e, t), moved = true;
      all_ended &= e.fibers[t].state == State::ENDED;
    }
    if (e.failed || all_ended) return;
    if (!moved) go_on(e);
  }
}

void add_span(std::vector<Span>& spans, const void* data, size_t bytes) {
  if (bytes) spans.push_back({reinterpret_cast<uintptr_t>(data), reinterpret_cast<uintptr_t>(data) + bytes});
}
void add_operands(Emulator& e, const Call& call) {
  e.operands.clear();
  for (int i = 0; i < call.num_operands; i++) {
    const Tensor& t = call[i];
    int64_t last = 0;
    bool empty = !t.data;
    for (int d = 0; d < t.rank; d++) empty |= t.dims[d] == 0, last += (t.dims[d] - 1) * t.strides[d];
    if (!empty) add_span(e.operands, t.data, size_t(last + 1) * size_of(t.dtype));
  }
  std::sort(e.operands.begin(), e.operands.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
  size_t kept = 0;
  for (const Span& span : e.operands)
    if (kept && span.begin <= e.operands[kept - 1].end) e.operands[kept - 1].end = std::max(e.operands[kept - 1].end, span.end);
    else e.operands[kept++] = span;
  e.operands.resize(kept);
  e.last_operand = {0, 0};
}
/// Of the file that has the kernels: what may be written is shared memory, as kernels have no other variables, and the rest constants.
void add_image(Emulator& e) {
  if (!e.shared.empty()) return;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* of) {
        Emulator& e = *static_cast<Emulator*>(of);
        std::vector<Span> shared, constants;
        for (int i = 0; i < info->dlpi_phnum; i++)
          if (const auto& part = info->dlpi_phdr[i]; part.p_type == PT_LOAD) add_span(part.p_flags & PF_W ? shared : constants, reinterpret_cast<const void*>(info->dlpi_addr + part.p_vaddr), part.p_memsz);
        const auto here = reinterpret_cast<uintptr_t>(&place);
        for (const Span& span : shared)
          if (span.contains(here, 1)) return e.shared = shared, e.constants = constants, 1;
        return 0;
      },
      &e);
}

bool is_in(const std::vector<Span>& spans, uintptr_t address, size_t bytes) {
  return std::any_of(spans.begin(), spans.end(), [&](const Span& span) { return span.contains(address, bytes); });
}
bool is_in_shared(Emulator& e, uintptr_t address, size_t bytes) {
  for (const Span& span : e.shared)
    if (span.contains(address, bytes)) return e.last_shared = span, true;
  return false;
}
bool is_in_operands(Emulator& e, uintptr_t address, size_t bytes) {
  if (e.last_operand.contains(address, bytes)) return true;
  const auto next = std::upper_bound(e.operands.begin(), e.operands.end(), address, [](uintptr_t a, const Span& span) { return a < span.begin; });
  if (next == e.operands.begin() || !next[-1].contains(address, bytes)) return false;
  e.last_operand = next[-1];
  return true;
}

bool is_place(uintptr_t address) { return address - reinterpret_cast<uintptr_t>(&place) < sizeof place; }

/// Of the running thread, to memory that the launch may use.
void touch(Emulator& e, uintptr_t address, size_t bytes, bool writes, bool is_shared) {
  const char* const verb = writes ? "writes " : "reads ";
  if (const uintptr_t at = address - reinterpret_cast<uintptr_t>(dynamic_shared_memory); is_shared && at < MOST_SHARED_BYTES && at + bytes > e.shared_bytes)
    return fail(e, verb + std::string("shared memory beyond the ") + std::to_string(e.shared_bytes) + " bytes that the launch asks for");
  const Moment now{is_shared ? e.block_begin : e.launch_begin, e.block_begin, e.interval, uint16_t(e.running), e.fibers[e.running].warp_barriers};
  for (size_t i = 0; i < bytes; i += Shadow::GRANULE) {
    Cell& cell = e.shadow[address + i];
    if (cell.awaits_copy) return fail(e, verb + std::string("shared memory that a copy is under way to; expected: a wait of the thread that started it, and a barrier"));
    if (is_shared && !writes && cell.written < e.block_begin) return fail(e, "reads shared memory that its block has not written");
    if (!(writes ? cell.note_write(now) : cell.note_read(now)))
      return fail(e, verb + std::string(is_shared ? "shared" : "global") + " memory that another thread has touched; expected: a barrier between the two, or another place");
  }
}
void access(const void* at, size_t bytes, bool writes) {
  static Emulator& e = emulator();
  if (e.running < 0 || e.inside) return;  // the host's part of a source, or the emulator's own code
  const Inside inside(e);
  const auto address = reinterpret_cast<uintptr_t>(at);
  if (address - reinterpret_cast<uintptr_t>(e.fibers[e.running].stack) < STACK_BYTES) return;
  const char* const verb = writes ? "writes " : "reads ";
  bool is_shared = e.last_shared.contains(address, bytes) && !is_place(address) && !is_in_operands(e, address, bytes);
  if (!is_shared && !is_in_operands(e, address, bytes)) {
    if (!writes && (is_in(e.parameters, address, bytes) || is_in(e.constants, address, bytes))) return;
    if (is_place(address)) return;
    is_shared = is_in_shared(e, address, bytes);
    if (!is_shared) return fail(e, verb + std::to_string(bytes) + " bytes outside of the call's operands");
  }
  if (bytes > 1 && address % bytes && bytes <= 16 && (bytes & (bytes - 1)) == 0) return fail(e, verb + std::to_string(bytes) + " bytes at an address that is no multiple of that");
  if (bytes > 1) touch(e, address, bytes, writes, is_shared);
}

/// An access to shared memory that the compiler does not see.
void touch_shared(Emulator& e, const void* at, size_t bytes, size_t alignment, bool writes) {
  const auto address = reinterpret_cast<uintptr_t>(at);
  if (is_place(address) || is_in_operands(e, address, bytes) || !is_in_shared(e, address, bytes)) return fail(e, "names a place that is not in shared memory");
  if (address % alignment) return fail(e, "names a place in shared memory that is no multiple of " + std::to_string(alignment) + " bytes");
  touch(e, address, bytes, writes, true);
}

void set_awaits_copy(Emulator& e, const AsyncCopy& copy, bool awaits) {
  for (size_t i = 0; i < sizeof copy.bytes; i += Shadow::GRANULE) e.shadow[reinterpret_cast<uintptr_t>(copy.to) + i].awaits_copy = awaits;
}

}  // namespace

void launch(const Launch& launch, const Call& call, const Range* parameters, int num_parameters, void (*body)(const void*), const void* context) {
  Emulator& e = emulator();
  const std::lock_guard lock(e.one_launch);
  const auto [grid, block, shared_bytes, kernel, caller] = launch;
  e.caller = caller, e.failed = false;
  e.threads = block.x * block.y * block.z;
  if (e.threads == 0 || e.threads > MOST_THREADS || e.threads % 32) return note(e, "there are " + std::to_string(e.threads) + " threads in a block; expected: a multiple of 32 up to 1024");
  if (grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) return note(e, "the grid is " + text_of(grid) + "; expected: at most (2147483647, 65535, 65535)");
  const auto allowed = e.most_shared.find(kernel);
  const unsigned most = allowed == e.most_shared.end() ? USUAL_SHARED_BYTES : unsigned(allowed->second);
  if (shared_bytes > most) return note(e, "a launch asks for " + std::to_string(shared_bytes) + " bytes of dynamic shared memory; expected: at most " + std::to_string(most) + ", or cudaFuncSetAttribute before");
  e.shared_bytes = shared_bytes;
  e.body = body, e.context = context;
  e.parameters.clear();
  for (int i = 0; i < num_parameters; i++) add_span(e.parameters, parameters[i].data, parameters[i].bytes);
  add_operands(e, call);
  add_image(e);
  e.launch_begin = e.interval + 1;
  const bool backwards = e.launches++ % 2;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  place.block_size = block, place.grid_size = grid;
  for (uint64_t i = 0; i < (last_block_alone ? 1 : blocks) && !e.failed; i++) {
    const uint64_t n = backwards || last_block_alone ? blocks - 1 - i : i;
    place.block = {unsigned(n % grid.x), unsigned(n / grid.x % grid.y), unsigned(n / grid.x / grid.y)};
    run_block(e, backwards);
  }
  if (e.failed)
    for (Fiber& fiber : e.fibers) {
      fiber.begun = false;  // in the middle of a kernel
      for (const AsyncCopy& copy : std::exchange(fiber.copies, {})) set_awaits_copy(e, copy, false);
    }
}

void (*defer)(void*, std::function<std::string()>) = nullptr;
bool last_block_alone = false;

void accessed(const void* at, size_t bytes, bool writes) { access(at, bytes, writes); }

std::string take_error() {
  Emulator& e = emulator();
  const std::lock_guard lock(e.one_launch);
  return std::exchange(e.error, "");
}

bool barrier(bool vote, const char* file, int line) {
  Emulator& e = emulator();
  const Inside inside(e);
  Fiber& fiber = e.fibers[e.running];
  fiber.state = State::AT_BARRIER, fiber.file = file, fiber.line = line;
  e.vote |= vote;
  leave(e);
  return e.voted;
}

void exchange(unsigned mask, const void* own, size_t bytes, void* all, const char* file, int line) {
  Emulator& e = emulator();
  const Inside inside(e);
  const unsigned t = unsigned(e.running);
  Fiber& fiber = e.fibers[t];
  Warp& warp = e.warps[t / 32];
  if (mask != ~0u) fail(e, "exchanges with some lanes of its warp; expected: a mask of all 32");
  if (warp.arrived && (warp.line != line || warp.file != file)) fail(e, "exchanges in line " + std::to_string(line) + " of " + file + " while its warp does in line " + std::to_string(warp.line));
  warp.file = file, warp.line = line;
  char(&slots)[32 * MOST_EXCHANGED_BYTES] = warp.slots[warp.generation % 2];
  __builtin_memcpy(slots + t % 32 * bytes, own, bytes);
  warp.arrived |= 1u << t % 32;
  if (warp.arrived == ~0u) {
    warp.arrived = 0, warp.generation++;
    for (unsigned other = t / 32 * 32; other < t / 32 * 32 + 32; other++) e.fibers[other].state = State::READY;
  } else {
    fiber.state = State::IN_EXCHANGE, fiber.file = file, fiber.line = line;
    leave(e);
  }
  __builtin_memcpy(all, slots, 32 * bytes);
}
void warp_barrier(const char* file, int line) {
  char all[32] = {};
  Emulator& e = emulator();
  e.fibers[e.running].warp_barriers++;
  exchange(~0u, all, 1, all, file, line);
}

void touch_shared(const void* at, size_t bytes, size_t alignment, bool writes) {
  Emulator& e = emulator();
  const Inside inside(e);
  touch_shared(e, at, bytes, alignment, writes);
}

// The destination counts as written when the copy starts, by which readers before are in a race with it, and when it arrives, by which readers behind are.
void start_copy(void* to, const void* from, bool valid) {
  Emulator& e = emulator();
  const Inside inside(e);
  Fiber& fiber = e.fibers[e.running];
  AsyncCopy copy{static_cast<char*>(to), {}, valid ? static_cast<const char*>(from) : nullptr, fiber.groups};
  touch_shared(e, to, sizeof copy.bytes, sizeof copy.bytes, true);
  if (const auto address = reinterpret_cast<uintptr_t>(from); valid) {
    if (!is_in_operands(e, address, sizeof copy.bytes)) return fail(e, "copies 16 bytes from outside of the call's operands");
    if (address % sizeof copy.bytes) return fail(e, "copies 16 bytes from an address that is no multiple of that");
    touch(e, address, sizeof copy.bytes, false, false);
    __builtin_memcpy(copy.bytes, from, sizeof copy.bytes);
  }
  __builtin_memset(to, 0xff, sizeof copy.bytes);  // NaN
  set_awaits_copy(e, copy, true);
  fiber.copies.push_back(copy);
}
void commit_copies() {
  Emulator& e = emulator();
  e.fibers[e.running].groups++;
}
void wait_for_copies(unsigned groups_under_way) {
  Emulator& e = emulator();
  const Inside inside(e);
  Fiber& fiber = e.fibers[e.running];
  size_t kept = 0;
  for (size_t i = 0; i < fiber.copies.size(); i++) {
    const AsyncCopy copy = fiber.copies[i];
    if (copy.group + groups_under_way >= fiber.groups) {
      fiber.copies[kept++] = copy;
      continue;
    }
    if (copy.from && __builtin_memcmp(copy.from, copy.bytes, sizeof copy.bytes)) return fail(e, "waits for a copy from memory that has changed meanwhile; expected: the wait before the change");
    set_awaits_copy(e, copy, false);
    touch_shared(e, copy.to, sizeof copy.bytes, sizeof copy.bytes, true);
    __builtin_memcpy(copy.to, copy.bytes, sizeof copy.bytes);
  }
  fiber.copies.resize(kept);
}

}  // namespace titan::cuda::host

cudaError_t cudaFuncSetAttribute(const void* func, cudaFuncAttribute attr, int value) {
  using namespace titan::cuda::host;
  if (attr != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || unsigned(value) > MOST_SHARED_BYTES) return cudaErrorInvalidValue;
  const std::lock_guard lock(emulator().one_launch);
  emulator().most_shared[func] = value;
  return cudaSuccess;
}

// What the compiler calls.
#define EMULATOR_CALL extern "C" __attribute__((visibility("hidden"))) void
#define ACCESS(bytes)                                                                                        \
  EMULATOR_CALL __tsan_read##bytes(void* at) { titan::cuda::host::access(at, bytes, false); }                \
  EMULATOR_CALL __tsan_write##bytes(void* at) { titan::cuda::host::access(at, bytes, true); }
ACCESS(1) ACCESS(2) ACCESS(4) ACCESS(8) ACCESS(16)
#define UNALIGNED_ACCESS(bytes)                                                                              \
  EMULATOR_CALL __tsan_unaligned_read##bytes(void* at) { titan::cuda::host::access(at, bytes, false); }      \
  EMULATOR_CALL __tsan_unaligned_write##bytes(void* at) { titan::cuda::host::access(at, bytes, true); }
UNALIGNED_ACCESS(2) UNALIGNED_ACCESS(4) UNALIGNED_ACCESS(8) UNALIGNED_ACCESS(16)
EMULATOR_CALL __tsan_read_range(void* at, size_t bytes) { titan::cuda::host::access(at, bytes, false); }
EMULATOR_CALL __tsan_write_range(void* at, size_t bytes) { titan::cuda::host::access(at, bytes, true); }
EMULATOR_CALL __tsan_init() {}
EMULATOR_CALL __tsan_func_entry(void*) {}
EMULATOR_CALL __tsan_func_exit() {}
EMULATOR_CALL __tsan_vptr_read(void*) {}
EMULATOR_CALL __tsan_vptr_update(void*, void*) {}
