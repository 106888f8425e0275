#include "measure.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "../executor.h"
#include "arena.h"

namespace titan::cpu {
namespace {

constexpr int REPEATS = 5;

const Kernel& find_kernel(const Backend& backend, const char* name) {
  return *std::find_if(backend.kernels, backend.kernels + backend.num_kernels, [&](const Kernel& kernel) { return std::strcmp(kernel.name, name) == 0; });
}

/// Least seconds that a call takes.
double least_seconds(const Kernel& kernel, const Call& call) {
  double least = 1e9;
  for (int repeat = 0; repeat < REPEATS; repeat++) {
    const auto start = std::chrono::steady_clock::now();
    {
      const Computing computing;
      kernel.run(call);
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    least = std::min(least, seconds.count());
  }
  return least;
}

template <class T> double measure_product(const Backend& backend, int64_t n, int threads, DType dtype) {
  const uint64_t matrix_bytes = static_cast<uint64_t>(n * n) * sizeof(float);
  Arena arena(3 * matrix_bytes);
  arena.touch(threads);
  Tensor operands[3];
  for (int i = 0; i < 3; i++) operands[i] = {arena.data() + static_cast<uint64_t>(i) * matrix_bytes, i < 2 ? dtype : DType::f32, 3, {1, n, n}, {n * n, n, 1}};
  for (const Tensor& operand : {operands[0], operands[1]})
    for (int64_t i = 0; i < n * n; i++) operand.as<T>()[i] = T(static_cast<float>(i % 7 - 3));
  const Attribute attributes[] = {{0}, {dtype == DType::bf16}};  // overwrite
  return 2e-9 * static_cast<double>(n * n * n) / least_seconds(find_kernel(backend, "gemm"), {operands, 3, attributes, 2, 0, threads});
}

double measure_bandwidth(const Backend& backend, int64_t n, int threads) {
  const uint64_t bytes = static_cast<uint64_t>(n) * sizeof(float);
  Arena arena(2 * bytes);
  arena.touch(threads);
  const Tensor operands[] = {{arena.data(), DType::f32, 1, {n}, {1}}, {arena.data() + bytes, DType::f32, 1, {n}, {1}}};
  const Attribute add = {1};
  return 3e-9 * static_cast<double>(bytes) / least_seconds(find_kernel(backend, "accumulate"), {operands, 2, &add, 1, 0, threads});
}

}  // namespace

double measure(const Backend& backend, titan_measure measure, int64_t n, int threads) {
  switch (measure) {
    case TITAN_MEASURE_PRODUCT: return measure_product<float>(backend, n, threads, DType::f32);
    case TITAN_MEASURE_PRODUCT_BF16: return measure_product<bf16>(backend, n, threads, DType::bf16);
    default: return measure_bandwidth(backend, n, threads);
  }
}

}  // namespace titan::cpu
