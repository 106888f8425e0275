// NVRTC and the runtime's libraries, played on a CPU: sources are compiled by the host compiler, and their kernels run in the emulator.
#ifdef TITAN_TOOLKIT_HEADER
#include <nvrtc.h>
#else
#include "nvrtc.h"
#endif

#include <dlfcn.h>
#include <elf.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "../../failure.h"
#include "machine.h"
#include "played_kernel.h"

using namespace titan;
using namespace titan::cuda::host;

struct _nvrtcProgram {
  std::string source, name;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string log, code;
};
struct CUlib_st {
  void* library;
};

namespace {

/// Nothing that the sanitizer's library would do is linked.
constexpr const char* COMPILER = TITAN_PLAYED_NVRTC_COMPILER
    " -x c++ -std=c++20 -O1 -fsanitize=thread -ffp-contract=off -fno-exceptions -fno-rtti -fPIC -fvisibility=hidden -nostdinc -nostdinc++ -Wno-unknown-pragmas"
    " -shared -nostdlib -include " TITAN_PLAYED_NVRTC_BUILTIN;

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// NVRTC's documents, "Supported Compile Options", as far as the engine uses them.
bool is_option(const std::string& option) {
  static constexpr const char* KNOWN[] = {"--std=c++20", "--device-as-default-execution-space", "--fmad=false", "--fmad=true", "--ptxas-options=-v"};
  if (option.rfind("--gpu-architecture=sm_", 0) == 0) return option.size() > 22 && option.find_first_not_of("0123456789", 22) == std::string::npos;
  return std::any_of(std::begin(KNOWN), std::end(KNOWN), [&](const char* known) { return option == known; });
}

/// Of a shared library: the table of sections is at its end. 0 if it is none.
size_t bytes_of_library(const char* code) {
  Elf64_Ehdr header;
  std::memcpy(&header, code, sizeof header);
  return std::memcmp(header.e_ident, ELFMAG, SELFMAG) ? 0 : header.e_shoff + size_t{header.e_shentsize} * header.e_shnum;
}

struct Folder {
  std::string path;
  Folder() {
    std::string name = std::filesystem::temp_directory_path() / "titan-nvrtc-XXXXXX";
    if (mkdtemp(name.data())) path = name;
  }
  ~Folder() {
    std::error_code error;
    if (!path.empty()) std::filesystem::remove_all(path, error);
  }
};

}  // namespace

extern "C" {

const char* nvrtcGetErrorString(nvrtcResult result) {
  switch (result) {
    case NVRTC_SUCCESS: return "NVRTC_SUCCESS";
    case NVRTC_ERROR_INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
    case NVRTC_ERROR_INVALID_PROGRAM: return "NVRTC_ERROR_INVALID_PROGRAM";
    case NVRTC_ERROR_INVALID_OPTION: return "NVRTC_ERROR_INVALID_OPTION";
    case NVRTC_ERROR_COMPILATION: return "NVRTC_ERROR_COMPILATION";
    default: return "NVRTC_ERROR_PROGRAM_CREATION_FAILURE";
  }
}

/// 0, as no NVRTC of NVIDIA's, and a number of what compiles: caches hold what another compiler made apart.
nvrtcResult nvrtcVersion(int* major, int* minor) {
  if (!major || !minor) return NVRTC_ERROR_INVALID_INPUT;
  *major = 0;
  *minor = static_cast<int>(std::hash<std::string>()(COMPILER + std::string(__VERSION__) + read_file(TITAN_PLAYED_NVRTC_BUILTIN)) & 0x7fffffff);
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcCreateProgram(nvrtcProgram* program, const char* source, const char* name, int number, const char* const* headers, const char* const* names) {
  if (!program || !source || number < 0 || (number && (!headers || !names))) return NVRTC_ERROR_INVALID_INPUT;
  *program = new _nvrtcProgram{source, name ? name : "default_program", {}, {}, {}};
  for (int i = 0; i < number; i++) (*program)->headers.emplace_back(names[i], headers[i]);
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcDestroyProgram(nvrtcProgram* program) {
  if (!program || !*program) return NVRTC_ERROR_INVALID_PROGRAM;
  delete *program;
  *program = nullptr;
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int number, const char* const* options) {
  if (!program) return NVRTC_ERROR_INVALID_PROGRAM;
  for (int i = 0; i < number; i++)
    if (!is_option(options[i])) return program->log = text("unrecognized option ", options[i]), NVRTC_ERROR_INVALID_OPTION;
  const Folder folder;
  if (folder.path.empty()) return NVRTC_ERROR_PROGRAM_CREATION_FAILURE;
  const auto write = [&](const std::string& name, const std::string& contents) { std::ofstream(folder.path + "/" + name) << contents; };
  for (const auto& [name, contents] : program->headers) write(name, contents);
  write(program->name, program->source);
  const std::string code = folder.path + "/code", command = text("cd ", folder.path, " && ", COMPILER, " -I . -o code ", program->name, " >log 2>&1");
  const int status = std::system(command.c_str());
  program->log = read_file(folder.path + "/log");
  if (status != 0) return NVRTC_ERROR_COMPILATION;
  program->code = read_file(code);
  return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, size_t* bytes) {
  if (!program || program->code.empty()) return NVRTC_ERROR_INVALID_PROGRAM;
  *bytes = program->code.size();
  return NVRTC_SUCCESS;
}
nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char* code) {
  if (!program || program->code.empty()) return NVRTC_ERROR_INVALID_PROGRAM;
  std::memcpy(code, program->code.data(), program->code.size());
  return NVRTC_SUCCESS;
}
nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t* bytes) {
  if (!program) return NVRTC_ERROR_INVALID_PROGRAM;
  *bytes = program->log.size() + 1;
  return NVRTC_SUCCESS;
}
nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char* log) {
  if (!program) return NVRTC_ERROR_INVALID_PROGRAM;
  std::memcpy(log, program->log.c_str(), program->log.size() + 1);
  return NVRTC_SUCCESS;
}

/// The dynamic linker opens files alone, and takes one of a name that it knows for the same: each has a folder of its own, until it is open.
cudaError_t cudaLibraryLoadData(cudaLibrary_t* library, const void* code, cudaJitOption*, void**, unsigned, cudaLibraryOption*, void**, unsigned) {
  const Entered entered(__func__);
  if (entered.fails) return cudaErrorUnknown;
  const size_t bytes = bytes_of_library(static_cast<const char*>(code));
  if (!bytes) return cudaErrorInvalidKernelImage;
  const Folder folder;
  const std::string path = folder.path + "/kernels.so";
  std::ofstream(path, std::ios::binary).write(static_cast<const char*>(code), static_cast<std::streamsize>(bytes));
  void* const opened = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!opened) return cudaErrorInvalidKernelImage;
  *library = new CUlib_st{opened};
  return cudaSuccess;
}

cudaError_t cudaLibraryGetKernel(cudaKernel_t* kernel, cudaLibrary_t library, const char* name) {
  const Entered entered(__func__);
  if (entered.fails) return cudaErrorUnknown;
  void* const function = dlsym(library->library, name);
  if (!function) return cudaErrorSymbolNotFound;
  *kernel = reinterpret_cast<cudaKernel_t>(new PlayedKernel{function, static_cast<Hooks*>(dlsym(library->library, "titan_hooks"))});
  return cudaSuccess;
}
}
