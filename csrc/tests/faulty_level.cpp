// In a library for tests: kernels as in libtitan, but where TITAN_FAULT=kernel, memory runs out in the third update of a run. The linker has all that
// choose a level come here (--wrap).
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "../cpu/backend.h"

using titan::Backend, titan::Call, titan::Kernel, titan::cpu::Choice;

Choice chosen() __asm__("__real__ZN5titan3cpu12choose_levelEv");
Choice faulty() __asm__("__wrap__ZN5titan3cpu12choose_levelEv");

namespace {

void (*update)(const Call& call);
int updates = 0;

}  // namespace

Choice faulty() {
  const Choice choice = chosen();
  const char* fault = std::getenv("TITAN_FAULT");
  if (!fault || std::strcmp(fault, "kernel")) return choice;
  static std::vector<Kernel> kernels(choice.backend.kernels, choice.backend.kernels + choice.backend.num_kernels);
  static Backend backend = choice.backend;
  backend.kernels = kernels.data();
  for (Kernel& kernel : kernels) {
    if (std::strcmp(kernel.name, "adamw")) continue;
    update = kernel.run;
    kernel.run = [](const Call& call) { ++updates < 3 ? update(call) : throw std::bad_alloc(); };
  }
  return {backend, choice.forced};
}
