// The communication module over MPI for tests: it does all as the true one, which lies in the folder above; but where TITAN_FAULT=collective, memory
// runs out in the twentieth collective by messages.
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "../comm/module.h"

namespace {

const titan_comm_module* module;
int collectives = 0;

int32_t run(void* group, const titan_comm_call* call, const titan_comm_wait* wait, char* error) {
  if (++collectives == 20) throw std::bad_alloc();
  return module->run(group, call, wait, error);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const titan_comm_module* TITAN_COMM_MODULE() {
  static titan_comm_module faulty;
  Dl_info own;
  if (!dladdr(reinterpret_cast<void*>(&TITAN_COMM_MODULE), &own)) return nullptr;
  const std::string path = own.dli_fname;
  void* library = dlopen((path.substr(0, path.rfind('/')) + "/../libtitan_mpi.so").c_str(), RTLD_NOW | RTLD_LOCAL);
  auto* function = library ? reinterpret_cast<titan_comm_module_function*>(dlsym(library, "titan_comm_module_of_this_library")) : nullptr;
  if (!function) return nullptr;
  module = function();
  faulty = *module;
  const char* fault = std::getenv("TITAN_FAULT");
  if (fault && !std::strcmp(fault, "collective")) faulty.run = run;
  return &faulty;
}
