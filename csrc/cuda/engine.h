// The engine of GPUs, by the CUDA runtime: one arena in device memory, kernels on a stream, inputs copied ahead on another.
#pragma once
#include "../engine.h"
#include "products.h"

namespace titan::cuda {

class CudaEngine : public Engine {
 public:
  /// Throws a Failure where there is no such GPU.
  CudaEngine(const Backend& backend, uint32_t ordinal, const titan_device_options& options);

  /// On any thread, as are all calls of CUDA behind it.
  ~CudaEngine() override { (void)cudaSetDevice(ordinal_); }

  void describe(titan_device_info& info) const override;
  /// Of the GPU, not of the machine.
  MemoryLimit memory(const MemorySharing& sharing) const override;
  /// Its threads only wait for the GPU: they may do so anywhere.
  void bind(const std::vector<Core>&) override {}
  /// Products are at least of n x n x n: they grow until one takes a while.
  double measure(titan_measure measure, int64_t n, int threads) override;
  std::unique_ptr<DeviceProgram> load(Program& program, comm::World* world) override;
  /// Which of a program's calls libraries run, and how. Its operands have addresses on this GPU, or, in the caller's buffers, some of the same alignment.
  Plans plan(const Program& program) const;

  int ordinal() const { return ordinal_; }
  /// Has the calling thread use this GPU.
  void use() const { TITAN_CUDA_CHECK(cudaSetDevice(ordinal_)); }

 private:
  int attribute(cudaDeviceAttr of) const;
  std::string links() const;
  double product_seconds(int64_t n, bool narrow, int threads);
  /// Made for the first product that somebody has.
  const Products& products();

  const int ordinal_;
  cudaDeviceProp properties_;
  std::unique_ptr<Products> products_;
};

}  // namespace titan::cuda
