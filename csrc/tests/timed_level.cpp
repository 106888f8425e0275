// In a library for measurements: kernels as in libtitan, but each product takes at least TITAN_PRODUCT_US microseconds, of which it sleeps what it does
// not need. So ranks that share processors keep to the times of a schedule. Products with a vocabulary take what they take: stages are alike then.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "wrapped_level.h"

using titan::Call, titan::cpu::Choice;

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

Choice wrapped() {
  const Choice choice = chosen();
  const char* wanted = std::getenv("TITAN_PRODUCT_US");
  if (!wanted) return choice;
  least = std::chrono::microseconds(std::atoll(wanted));
  return titan::test::with_kernel(choice, "gemm", [](const Call& call) {
    const auto end = std::chrono::steady_clock::now() + least;
    product(call);
    if (!has_vocabulary(call)) std::this_thread::sleep_until(end);
  }, product);
}
