// In a library for measurements: kernels as in libtitan, but each product takes at least TITAN_PRODUCT_US microseconds, of which it sleeps what it does
// not need. So ranks that share processors keep to the times of a schedule. Products with a vocabulary take what they take: stages are alike then. The
// linker has all that choose a level come here (--wrap).
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "../cpu/backend.h"

using titan::Backend, titan::Call, titan::Kernel, titan::cpu::Choice;

Choice chosen() __asm__("__real__ZN5titan3cpu12choose_levelEv");
Choice timed() __asm__("__wrap__ZN5titan3cpu12choose_levelEv");

namespace {

void (*product)(const Call& call);
std::chrono::microseconds least{0};

/// Above all sizes of a block.
constexpr int64_t VOCABULARY = 1024;

bool has_vocabulary(const Call& call) {
  for (int i = 0; i < call.num_operands; i++)
    if (std::any_of(call[i].dims, call[i].dims + call[i].rank, [](int64_t dim) { return dim >= VOCABULARY; })) return true;
  return false;
}

}  // namespace

Choice timed() {
  const Choice choice = chosen();
  const char* wanted = std::getenv("TITAN_PRODUCT_US");
  if (!wanted) return choice;
  least = std::chrono::microseconds(std::atoll(wanted));
  static std::vector<Kernel> kernels(choice.backend.kernels, choice.backend.kernels + choice.backend.num_kernels);
  static Backend backend = choice.backend;
  backend.kernels = kernels.data();
  for (Kernel& kernel : kernels) {
    if (std::strcmp(kernel.name, "gemm")) continue;
    product = kernel.run;
    kernel.run = [](const Call& call) {
      const auto end = std::chrono::steady_clock::now() + least;
      product(call);
      if (!has_vocabulary(call)) std::this_thread::sleep_until(end);
    };
  }
  return {backend, choice.forced};
}
