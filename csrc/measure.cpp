#include "measure.h"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace titan {
namespace {

constexpr int REPEATS = 5;

const Kernel& find_kernel(const Backend& backend, const char* name) {
  return *std::find_if(backend.kernels, backend.kernels + backend.num_kernels, [&](const Kernel& kernel) { return std::strcmp(kernel.name, name) == 0; });
}

/// Least seconds that a call takes, on the executor thread.
double least_seconds(const Kernel& kernel, const Call& call) {
  double least = 1e9;
  for (int repeat = 0; repeat < REPEATS; repeat++) {
    const auto start = std::chrono::steady_clock::now();
    run_kernel(kernel, call);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    least = std::min(least, seconds.count());
  }
  return least;
}

template <class T> double measure_product_of(Device& device, int64_t n, int threads, DType dtype) {
  const uint64_t matrix_bytes = static_cast<uint64_t>(n * n) * sizeof(float);
  Arena arena(3 * matrix_bytes);
  Tensor operands[3];
  for (int i = 0; i < 3; i++) operands[i] = {arena.data() + static_cast<uint64_t>(i) * matrix_bytes, i < 2 ? dtype : DType::f32, 3, {1, n, n}, {n * n, n, 1}};
  const Attribute attributes[] = {{0}, {dtype == DType::bf16}};  // overwrite
  const Call call{operands, 3, attributes, 2, 0, threads};
  double seconds = 0;
  device.executor.run([&] {
    device.executor.use_threads(threads);
    arena.touch(threads);
    for (const Tensor& operand : {operands[0], operands[1]})
      for (int64_t i = 0; i < n * n; i++) operand.as<T>()[i] = T(static_cast<float>(i % 7 - 3));
    seconds = least_seconds(find_kernel(device.backend, "gemm"), call);
  });
  return 2e-9 * static_cast<double>(n * n * n) / seconds;
}

}  // namespace

double measure_product(Device& device, int64_t n, int threads) { return measure_product_of<float>(device, n, threads, DType::f32); }
double measure_product_bf16(Device& device, int64_t n, int threads) { return measure_product_of<bf16>(device, n, threads, DType::bf16); }

double measure_bandwidth(Device& device, int64_t n, int threads) {
  const uint64_t bytes = static_cast<uint64_t>(n) * sizeof(float);
  Arena arena(2 * bytes);
  const Tensor operands[] = {{arena.data(), DType::f32, 1, {n}, {1}}, {arena.data() + bytes, DType::f32, 1, {n}, {1}}};
  const Attribute add = {1};
  const Call call{operands, 2, &add, 1, 0, threads};
  double seconds = 0;
  device.executor.run([&] {
    device.executor.use_threads(threads);
    arena.touch(threads);
    seconds = least_seconds(find_kernel(device.backend, "accumulate"), call);
  });
  return 3e-9 * static_cast<double>(bytes) / seconds;
}

}  // namespace titan
