#include "nvrtc.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <map>
#include <mutex>
#include <semaphore>
#include <thread>
#include <vector>

#include "../sha256.h"
#include "nvrtc_headers.h"
#include "resources.h"
#ifdef TITAN_PLAYED_RUNTIME
#include "host/nvrtc.h"
#else
#include <nvrtc.h>
#endif

namespace titan::cuda {
namespace {

/// Each operation rounds by itself, as on CPUs: no product and sum become one.
constexpr const char* OPTIONS[] = {"--std=c++20", "--fmad=false", "--device-as-default-execution-space"};

void check_nvrtc(nvrtcResult result, const char* what) {
  if (result != NVRTC_SUCCESS) throw Failure(TITAN_STATUS_INTERNAL, text("NVRTC failed in ", what, ": ", nvrtcGetErrorString(result)));
}
#define TITAN_NVRTC_CHECK(call) check_nvrtc(call, #call)

#ifndef TITAN_PLAYED_RUNTIME
/// A part of NVRTC that it looks for where the system does, and not beside itself, where NVIDIA's wheels have it. One that is open already is found.
void open_builtins() {
  int major = 0, minor = 0;
  Dl_info own;
  TITAN_NVRTC_CHECK(nvrtcVersion(&major, &minor));
  if (!dladdr(reinterpret_cast<void*>(&nvrtcVersion), &own) || !own.dli_fname) return;
  const std::string path = own.dli_fname;
  (void)dlopen((path.substr(0, path.rfind('/') + 1) + text("libnvrtc-builtins.so.", major, ".", minor)).c_str(), RTLD_NOW | RTLD_GLOBAL);  // else NVRTC says what it lacks
}
#endif

struct Source {
  nvrtcProgram program = nullptr;
  ~Source() {
    if (program) (void)nvrtcDestroyProgram(&program);
  }
  std::string log() const {
    size_t bytes = 0;
    TITAN_NVRTC_CHECK(nvrtcGetProgramLogSize(program, &bytes));
    std::string log(bytes, 0);
    TITAN_NVRTC_CHECK(nvrtcGetProgramLog(program, log.data()));
    return log.c_str();
  }
};

Sha256::Hash hash_of(const std::string& message) {
  Sha256 hash(1);
  const auto* const data = reinterpret_cast<const uint8_t*>(message.data());
  const size_t whole = message.size() / Sha256::BLOCK * Sha256::BLOCK;
  hash.add(&data, whole);
  return hash.end(0, data + whole, message.size() - whole);
}
std::string hex_of(const Sha256::Hash& hash) {
  std::string hex;
  for (const uint8_t byte : hash)
    for (const int digit : {byte >> 4, byte & 15}) hex += "0123456789abcdef"[digit];
  return hex;
}

/// All that the machine code follows from.
std::string key_of(const std::string& source, const std::string& architecture) {
  int major = 0, minor = 0;
  TITAN_NVRTC_CHECK(nvrtcVersion(&major, &minor));
  std::string key = text("NVRTC ", major, ".", minor, " ", architecture, "\n");
  for (const char* option : OPTIONS) key += text(option, "\n");
  for (const auto& [name, header] : NVRTC_HEADERS) key += text(name, "\n", header, "\n");
  return key + source;
}

/// "" where the environment names none.
std::filesystem::path cache_folder() {
  const char *cache = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  if (cache && *cache) return std::filesystem::path(cache) / "libtitan/kernels";
  return home && *home ? std::filesystem::path(home) / ".cache/libtitan/kernels" : std::filesystem::path();
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
/// Whole or not at all, as it gets its name at the end. A cache that takes no files is none.
void keep_file(const std::filesystem::path& path, const std::string& bytes) {
  static std::atomic<int> files{0};
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  const std::filesystem::path unfinished = path.string() + text(".", static_cast<int64_t>(getpid()), "-", files++);
  std::ofstream file(unfinished, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (file) std::filesystem::rename(unfinished, path, error);
  if (!file || error) std::filesystem::remove(unfinished, error);
}

/// Where TITAN_CUDA_SOURCES names a folder, the source goes there, for people and for tests.
void show_source(const std::string& name, const std::string& source) {
  const char* folder = std::getenv("TITAN_CUDA_SOURCES");
  if (folder && *folder) keep_file(std::filesystem::path(folder) / (name + ".cu"), source);
}

std::string architecture_of_gpu() {
  int device = 0, major = 0, minor = 0;
  TITAN_CUDA_CHECK(cudaGetDevice(&device));
  TITAN_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  TITAN_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  return text("sm_", major, minor);
}

/// So many compile at a time.
std::counting_semaphore<>& processors() {
  static std::counting_semaphore<> it(std::max(1u, std::thread::hardware_concurrency()));
  return it;
}

}  // namespace

std::string compile_source(const std::string& name, const std::string& source, const std::string& architecture, std::string* log) {
#ifndef TITAN_PLAYED_RUNTIME
  static std::once_flag opened;
  std::call_once(opened, open_builtins);
#endif
  std::vector<const char*> names, texts;
  for (const auto& [header, contents] : NVRTC_HEADERS) names.push_back(header), texts.push_back(contents);
  const std::string wanted = "--gpu-architecture=" + architecture;
  std::vector<const char*> options(std::begin(OPTIONS), std::end(OPTIONS));
  options.push_back(wanted.c_str());
  if (log) options.push_back("--ptxas-options=-v");
  Source made;
  TITAN_NVRTC_CHECK(nvrtcCreateProgram(&made.program, source.c_str(), (name + ".cu").c_str(), static_cast<int>(names.size()), texts.data(), names.data()));
  const nvrtcResult result = nvrtcCompileProgram(made.program, static_cast<int>(options.size()), options.data());
  if (result != NVRTC_SUCCESS)
    throw Failure(TITAN_STATUS_INTERNAL, text("NVRTC does not compile ", name, " for ", architecture, ": ", nvrtcGetErrorString(result), "\n", made.log().substr(0, 600),
                                              "; fix: an NVRTC that knows this GPU; TITAN_CUDA_SOURCES=FOLDER has the source written there"));
  if (log) *log = made.log();
  size_t bytes = 0;
  TITAN_NVRTC_CHECK(nvrtcGetCUBINSize(made.program, &bytes));
  std::string code(bytes, 0);
  TITAN_NVRTC_CHECK(nvrtcGetCUBIN(made.program, code.data()));
  return code;
}

/// An entry is the hash of key and code, and the code: one that was cut, changed or put under another name is made anew.
std::string cached_code(const std::string& name, const std::string& source, const std::string& architecture) {
  const std::filesystem::path folder = cache_folder();
  if (folder.empty()) return compile_source(name, source, architecture);
  const std::string key = key_of(source, architecture);
  const std::filesystem::path path = folder / hex_of(hash_of(key));
  const std::string known = read_file(path);
  if (known.size() > 64 && known.compare(0, 64, hex_of(hash_of(key + known.substr(64)))) == 0) return known.substr(64);
  const std::string code = compile_source(name, source, architecture);
  keep_file(path, hex_of(hash_of(key + code)) + code);
  return code;
}

struct CompiledKernel {
  std::string name;
  std::shared_future<std::string> code;
  mutable std::mutex mutex;
  mutable const void* kernel = nullptr;
};

const CompiledKernel& compile_kernel(const std::string& name, const std::string& source) {
  static std::mutex mutex;
  static std::map<std::string, CompiledKernel> known;
  const std::string architecture = architecture_of_gpu();
  const std::lock_guard lock(mutex);
  CompiledKernel& it = known[architecture + source];
  if (it.code.valid()) return it;
  it.name = name;
  it.code = std::async(std::launch::async, [=] {
    processors().acquire();
    struct Release {
      ~Release() { processors().release(); }
    } release;
    show_source(name, source);
    return cached_code(name, source, architecture);
  });
  return it;
}

/// The thread that launches has the GPU, and loads the code. It stays loaded.
const void* wait_for(const CompiledKernel& kernel) {
  const std::lock_guard lock(kernel.mutex);
  if (kernel.kernel) return kernel.kernel;
  cudaLibrary_t library = nullptr;
  cudaKernel_t loaded = nullptr;
  TITAN_CUDA_CHECK(cudaLibraryLoadData(&library, kernel.code.get().data(), nullptr, nullptr, 0, nullptr, nullptr, 0));
  TITAN_CUDA_CHECK(cudaLibraryGetKernel(&loaded, library, kernel.name.c_str()));
  return kernel.kernel = reinterpret_cast<const void*>(loaded);
}

}  // namespace titan::cuda
