#include "measure.h"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace titan {

double measure_product(Device& device, int64_t n, int threads) {
  constexpr int REPEATS = 10;
  const Kernel* gemm = std::find_if(device.backend.kernels, device.backend.kernels + device.backend.num_kernels,
                                    [](const Kernel& kernel) { return std::strcmp(kernel.name, "gemm") == 0; });
  const uint64_t matrix_bytes = static_cast<uint64_t>(n * n) * sizeof(float);
  Arena arena(3 * matrix_bytes);
  Tensor operands[3];
  for (int i = 0; i < 3; i++) operands[i] = {arena.data() + static_cast<uint64_t>(i) * matrix_bytes, DType::f32, 3, {1, n, n}, {n * n, n, 1}};
  const Attribute attributes[] = {{0}, {0}};  // overwrite, in f32
  const Call call{operands, 3, attributes, 2, 0, threads};
  double best = 0;
  device.executor.run([&] {
    arena.touch(threads);
    for (int64_t i = 0; i < 2 * n * n; i++) operands[0].as<float>()[i] = static_cast<float>(i % 7 - 3);
    for (int repeat = 0; repeat < REPEATS; repeat++) {
      const auto start = std::chrono::steady_clock::now();
      run_kernel(*gemm, call);
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      best = std::max(best, 2e-9 * static_cast<double>(n * n * n) / seconds.count());
    }
  });
  return best;
}

}  // namespace titan
