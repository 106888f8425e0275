// Runs an encoded program through the C interface and counts the memory that the process allocates after the first step.
//   run_program PROGRAM INPUT THREADS STEPS ACTION...      an action is section:flags:input_base:output_base; INPUT is a file
// Prints `level NAME`, the processor level whose kernels run, `allocations N` (without those of the BLAS library, which makes some of its own), one line for each library that allocated
// with its count, and `output HEX`, the output buffer after the last step.
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "../titan.h"

namespace {

std::atomic<bool> counting{false};
std::atomic<int> count{0};
constexpr int MOST = 4096;
void* callers[MOST];

void record(void* caller) {
  if (!counting) return;
  const int n = count++;
  if (n < MOST) callers[n] = caller;
}

}  // namespace

#if !defined(__SANITIZE_ADDRESS__)  // which brings its own malloc: nothing is counted then
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
#define TITAN_SEEN __attribute__((visibility("default")))
TITAN_SEEN void* malloc(size_t size) { return record(__builtin_return_address(0)), __libc_malloc(size); }
TITAN_SEEN void* calloc(size_t n, size_t size) { return record(__builtin_return_address(0)), __libc_calloc(n, size); }
TITAN_SEEN void* realloc(void* old, size_t size) { return record(__builtin_return_address(0)), __libc_realloc(old, size); }
TITAN_SEEN void* memalign(size_t alignment, size_t size) { return record(__builtin_return_address(0)), __libc_memalign(alignment, size); }
TITAN_SEEN void* aligned_alloc(size_t alignment, size_t size) { return record(__builtin_return_address(0)), __libc_memalign(alignment, size); }
TITAN_SEEN int posix_memalign(void** out, size_t alignment, size_t size) {
  record(__builtin_return_address(0));
  *out = __libc_memalign(alignment, size);
  return *out ? 0 : 12;
}
}
#endif

namespace {

std::vector<uint8_t> read_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) std::fprintf(stderr, "cannot read %s\n", path), std::exit(2);
  return {std::istreambuf_iterator<char>(file), {}};
}

void expect_ok(int32_t status, const titan_error& error) {
  if (status == TITAN_STATUS_OK) return;
  std::fprintf(stderr, "status %d in section %d, instruction %" PRId64 " (%s, %s): %s\n", status, error.section, error.instruction, error.kernel, error.scope, error.message);
  std::exit(1);
}

std::string library_of(void* address) {
  Dl_info info;
  const char* path = dladdr(address, &info) && info.dli_fname ? info.dli_fname : "?";
  const char* name = std::strrchr(path, '/');
  return name ? name + 1 : path;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) return std::fprintf(stderr, "expected: run_program PROGRAM INPUT THREADS STEPS ACTION...\n"), 2;
  const std::vector<uint8_t> bytes = read_file(argv[1]), input_bytes = read_file(argv[2]);
  const int threads = std::atoi(argv[3]), steps = std::atoi(argv[4]);
  std::vector<titan_action> actions;
  for (int i = 5; i < argc; i++) {
    titan_action action = {};
    if (std::sscanf(argv[i], "%" SCNu32 ":%" SCNu32 ":%" SCNu64 ":%" SCNu64, &action.section, &action.flags, &action.input_base, &action.output_base) != 4)
      return std::fprintf(stderr, "expected: an action section:flags:input_base:output_base, not %s\n", argv[i]), 2;
    actions.push_back(action);
  }
  titan_error error = {};
  uint64_t device = 0, program = 0, output_bytes = 0;
  titan_device_info info = {};
  titan_memory memory = {};
  const titan_device_options options = {static_cast<uint32_t>(threads), 1, 0};
  expect_ok(titan_device_open(TITAN_DEVICE_CPU, 0, &options, &device, &error), error);
  expect_ok(titan_device_describe(device, &info, &error), error);
  expect_ok(titan_program_create(device, bytes.data(), bytes.size(), &program, &error), error);
  expect_ok(titan_program_memory(program, &memory, &error), error);
  for (const titan_action& action : actions) output_bytes = std::max(output_bytes, action.output_base + memory.output_bytes);
  std::vector<uint64_t> input((input_bytes.size() + 7) / 8), output((output_bytes + 7) / 8);
  if (!input_bytes.empty()) std::memcpy(input.data(), input_bytes.data(), input_bytes.size());
  for (int step = 0; step < steps; step++) {
    counting = step > 0;
    const int32_t status = titan_program_run(program, actions.data(), actions.size(), reinterpret_cast<const uint8_t*>(input.data()), input_bytes.size(),
                                             reinterpret_cast<uint8_t*>(output.data()), output_bytes, &error);
    counting = false;
    expect_ok(status, error);
  }
  std::map<std::string, int> by_library;
  for (int i = 0; i < std::min<int>(count, MOST); i++) by_library[library_of(callers[i])]++;
  int ours = count;
  for (const auto& [library, n] : by_library)
    if (library.find("blas") != std::string::npos || library.find("mkl") != std::string::npos) ours -= n;
  std::printf("level %s\nallocations %d\n", info.level, ours);
  for (const auto& [library, n] : by_library) std::printf("%s %d\n", library.c_str(), n);
  std::printf("output ");
  for (uint64_t i = 0; i < output_bytes; i++) std::printf("%02x", reinterpret_cast<uint8_t*>(output.data())[i]);
  std::printf("\n");
  expect_ok(titan_program_destroy(program, &error), error);
  expect_ok(titan_device_close(device, &error), error);
}
