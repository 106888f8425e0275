// Kernels from source by the played NVRTC: what a launch computes, errors planted in sources, what the compiler says, and the cache of machine code.
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "../cuda/launch.h"
#include "../cuda/nvrtc.h"
#include "../failure.h"
#include "test.h"

using namespace titan;
using namespace titan::test;

namespace {

constexpr int N = 70, THREADS = 32, WIDTH = 4;
struct Operands {
  void* data[64];
  bool aligned;
};

/// As csrc/cuda/ops/map.cu writes them: y = x + 1, with this in the place of a kernel's own lines.
std::string source_of(const std::string& name, const std::string& load, const std::string& store, const std::string& rest = "rest >= 4") {
  return "#include \"backend.h\"\n#include \"map_formulas.h\"\nnamespace titan::cuda::map::" + name +
         " {\ntemplate <int N>\n__device__ inline void elements(const Operands& operands, unsigned i) {\n  float x[N], y[N];\n  " + load +
         "\n  for (int k = 0; k < N; k++) y[k] = map::add(x[k], 1.f);\n  " + store + "\n}\nextern \"C\" __global__ void " + name +
         "(const __grid_constant__ Operands operands) {\n  const unsigned first = (blockIdx.x * 32 + threadIdx.x) * 4, rest = first < 70 ? 70 - first : 0;\n  if (rest && " + rest +
         ") return elements<4>(operands, first);\n  for (unsigned k = 0; k < 4 && k < rest; k++) elements<1>(operands, first + k);\n}\n}\n";
}

const char *const LOAD = "load<float, 1>(operands.data[0], i, x);", *const STORE = "store<float, 1>(operands.data[1], i, y);";

/// Launches a source's kernel on x and y. @returns the emulator's complaint, "" if there is none.
std::string complaint(const std::string& name, const std::string& source, float* x, float* y) {
  const Tensor operands[] = {{x, DType::f32, 1, {N}, {1}}, {y, DType::f32, 1, {N}, {1}}};
  const Call call = {operands, 2, nullptr, 0, 0, 1};
  cuda::launch_compiled(cuda::wait_for(cuda::compile_kernel(name, source)), {(N + THREADS * WIDTH - 1) / (THREADS * WIDTH), THREADS}, call, Operands{{x, y}, true});
  return cuda::host::take_error();
}

struct alignas(16) Memory {
  float v[N + 10], apart[4 * N];
};

void refuses(const std::string& name, const std::string& source, float* from, float* to, const char* part) {
  const std::string told = complaint(name, source, from, to);
  EXPECT(told.find(part) != std::string::npos);
  if (told.find(part) == std::string::npos) std::printf("  %s: \"%s\"\n", name.c_str(), told.c_str());
}

void a_kernel_from_source_computes() {
  Memory x, y;
  for (int i = 0; i < N + 10; i++) x.v[i] = float(i), y.v[i] = -1;
  EXPECT(complaint("right", source_of("right", LOAD, STORE), x.v, y.v) == "");
  for (int i = 0; i < N + 10; i++) EXPECT(y.v[i] == (i < N ? float(i) + 1 : -1));
}

void a_kernel_from_source_keeps_to_its_operands() {
  Memory x, y;
  refuses("wrong_stride", source_of("wrong_stride", "load<float, 2>(operands.data[0], 2 * i, x);", STORE), x.v, y.v, "reads 4 bytes outside of the call's operands");
  refuses("over_the_end", source_of("over_the_end", LOAD, STORE, "true"), x.v, y.v, "16 bytes outside of the call's operands");
  refuses("unaligned", source_of("unaligned", LOAD, STORE), x.v + 1, y.v, "reads 16 bytes at an address that is no multiple of that");
}

/// In place, where a thread reads what its neighbour writes.
void inputs_are_read_before_outputs_are_written() {
  Memory x;
  refuses("read_late", source_of("read_late", "load<float, 1>(operands.data[0], i + 4 < 67 ? i + 4 : i, x);", STORE), x.v, x.v, "global memory that another thread has touched");
}

void what_does_not_compile_is_told() {
  std::string told;
  try {
    cuda::wait_for(cuda::compile_kernel("unknown", source_of("unknown", LOAD, "const float r3 = map::cosine(y[0]);")));
  } catch (const Failure& failure) {
    told = failure.what();
  }
  EXPECT(told.find("NVRTC does not compile unknown for sm_90") != std::string::npos && told.find("r3 = map::cosine") != std::string::npos && told.find("fix:") != std::string::npos);
  const std::string source = source_of("twice", LOAD, STORE);
  const auto& kernel = cuda::compile_kernel("twice", source);
  EXPECT(&kernel == &cuda::compile_kernel("twice", source) && cuda::wait_for(kernel));
}

/// "" where it had to be compiled, which is not possible while there is no folder for what is made on the way.
std::string code_of(const std::string& source) {
  try {
    return cuda::cached_code("cached", source, "sm_90");
  } catch (const std::exception&) {
    return "";
  }
}

void entries_of_the_cache_are_whole_and_their_own(const std::filesystem::path& folder) {
  setenv("XDG_CACHE_HOME", (folder / "cache").c_str(), 1);
  const auto entries = folder / "cache/libtitan/kernels";
  const std::string one = source_of("cached", LOAD, STORE), other = source_of("cached", "load<float, 0>(operands.data[0], i, x);", STORE);
  const std::string code = code_of(one);
  EXPECT(!code.empty());
  const auto entry = std::filesystem::directory_iterator(entries)->path();
  const std::string other_code = code_of(other);
  EXPECT(!other_code.empty() && other_code != code);
  std::filesystem::path other_entry;
  int files = 0;
  for (const auto& it : std::filesystem::directory_iterator(entries)) files++, other_entry = it.path() == entry ? other_entry : it.path();
  EXPECT(files == 2);

  const auto without_compiler = [&](const std::string& source) {
    setenv("TMPDIR", (folder / "none").c_str(), 1);
    const std::string found = code_of(source);
    unsetenv("TMPDIR");
    return found;
  };
  EXPECT(without_compiler(one) == code);
  const auto size = std::filesystem::file_size(entry);
  const auto mended = [&](const char* what) {
    EXPECT(without_compiler(one).empty());  // not used
    EXPECT(code_of(one) == code && without_compiler(one) == code);
    if (failures) std::printf("  an entry %s\n", what);
  };
  std::filesystem::resize_file(entry, size / 2);
  mended("that was cut");
  std::fstream(entry, std::ios::in | std::ios::out | std::ios::binary).seekp(std::streamoff(size) - 9).put('!');
  mended("that was changed");
  std::filesystem::copy_file(other_entry, entry, std::filesystem::copy_options::overwrite_existing);
  mended("of another source");
  setenv("XDG_CACHE_HOME", "/dev/null", 1);  // takes no files
  EXPECT(code_of(one) == code);
}

}  // namespace

int main() {
  std::string folder = std::filesystem::temp_directory_path() / "titan-nvrtc-test-XXXXXX";
  if (!mkdtemp(folder.data())) return 1;
  setenv("XDG_CACHE_HOME", (folder + "/first").c_str(), 1);
  a_kernel_from_source_computes();
  a_kernel_from_source_keeps_to_its_operands();
  inputs_are_read_before_outputs_are_written();
  what_does_not_compile_is_told();
  entries_of_the_cache_are_whole_and_their_own(folder);
  std::filesystem::remove_all(folder);
  return finish("nvrtc");
}
