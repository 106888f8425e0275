// What libraries for tests and measurements have in common that come between libtitan and the kernels of its level. The linker has all that choose
// a level come to `wrapped` (--wrap).
#pragma once
#include <cstring>
#include <vector>

#include "../cpu/backend.h"

titan::cpu::Choice chosen() __asm__("__real__ZN5titan3cpu12choose_levelEv");
titan::cpu::Choice wrapped() __asm__("__wrap__ZN5titan3cpu12choose_levelEv");

namespace titan::test {

/// The level that was chosen, with another `run` of one kernel, which may call the one before. For one call in a process.
inline cpu::Choice with_kernel(const cpu::Choice& choice, const char* name, void (*run)(const Call&), void (*&before)(const Call&)) {
  static std::vector<Kernel> kernels(choice.backend.kernels, choice.backend.kernels + choice.backend.num_kernels);
  static Backend backend = choice.backend;
  backend.kernels = kernels.data();
  for (Kernel& kernel : kernels) {
    if (std::strcmp(kernel.name, name)) continue;
    before = kernel.run;
    kernel.run = run;
  }
  return {backend, choice.forced};
}

}  // namespace titan::test
