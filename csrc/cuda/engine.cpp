#include "engine.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "../comm/world.h"
#include "cuda_program.h"

namespace titan::cuda {
namespace {

constexpr int REPEATS = 5;

// A GPU does not reach its speed in a product that takes less time, so a larger one is measured, up to so many rows.
constexpr double LEAST_SECONDS = 1e-4;
constexpr int64_t MOST_ROWS = 8192;

const Kernel& find_kernel(const Backend& backend, const char* name) {
  return *std::find_if(backend.kernels, backend.kernels + backend.num_kernels, [&](const Kernel& kernel) { return std::strcmp(kernel.name, name) == 0; });
}

bool is_product(const Kernel& kernel) { return !std::strcmp(kernel.name, "gemm"); }

/// Least seconds that a call takes, by the GPU's own clock.
double least_seconds(const Kernel& kernel, const Plan* plan, Call call) {
  const Stream stream = make_stream();
  const Event begin = make_event(cudaEventDefault), end = make_event(cudaEventDefault);
  call.stream = stream.get();
  float least = 1e9f;
  for (int repeat = 0; repeat < REPEATS; repeat++) {
    TITAN_CUDA_CHECK(cudaEventRecord(begin.get(), stream.get()));
    if (plan) plan->run(call);
    else kernel.run(call);
    check(cudaGetLastError(), kernel.name);
    TITAN_CUDA_CHECK(cudaEventRecord(end.get(), stream.get()));
    TITAN_CUDA_CHECK(cudaStreamSynchronize(stream.get()));
    float milliseconds = 0;
    TITAN_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()));
    least = std::min(least, milliseconds);
  }
  return 1e-3 * static_cast<double>(std::max(least, 1e-6f));
}

/// Device memory, of zeros.
DeviceMemory make_zeros(uint64_t bytes) {
  DeviceMemory memory = make_device_memory(bytes);
  const Stream stream = make_stream();
  TITAN_CUDA_CHECK(cudaMemsetAsync(memory.get(), 0, bytes, stream.get()));
  TITAN_CUDA_CHECK(cudaStreamSynchronize(stream.get()));
  return memory;
}

/// Puts numbers from -1 to 1 into a matrix: zeros take less power, and so are multiplied faster than what is trained.
void fill(const Tensor& matrix) {
  const auto count = static_cast<uint64_t>(matrix.dims[1] * matrix.dims[2]);
  std::vector<uint8_t> bytes(count * size_of(matrix.dtype));
  uint32_t state = 1;
  for (uint64_t i = 0; i < count; i++) {
    state = 1664525 * state + 1013904223;  // Numerical Recipes' generator
    const float x = 0x1p-31f * static_cast<float>(static_cast<int32_t>(state));
    if (matrix.dtype == DType::bf16) reinterpret_cast<bf16*>(bytes.data())[i] = bf16(x);
    else reinterpret_cast<float*>(bytes.data())[i] = x;
  }
  const Stream stream = make_stream();
  TITAN_CUDA_CHECK(cudaMemcpyAsync(matrix.data, bytes.data(), bytes.size(), cudaMemcpyHostToDevice, stream.get()));
  TITAN_CUDA_CHECK(cudaStreamSynchronize(stream.get()));
}

int number_of_gpus() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count) return count;
  throw Failure(TITAN_STATUS_INVALID_ARGUMENT, text("there is no GPU that CUDA can use: ", error == cudaSuccess ? "none is visible" : cudaGetErrorString(error),
                                                    "; expected: an NVIDIA GPU with its driver (see nvidia-smi), which CUDA_VISIBLE_DEVICES does not hide; fix: --device cpu"));
}

/// A process that sees one GPU takes that: launchers may give each a GPU of its own, as Slurm does by --gpus-per-task. Where two see the same, NCCL says so.
int checked_ordinal(uint32_t ordinal) {
  const int count = number_of_gpus();
  if (count == 1) return 0;
  if (ordinal < static_cast<uint32_t>(count)) return static_cast<int>(ordinal);
  throw Failure(TITAN_STATUS_INVALID_ARGUMENT, text("there is no GPU ", ordinal, "; expected: below ", count, ", the number of those that this process sees; fix: fewer processes on this host, or CUDA_VISIBLE_DEVICES"));
}

}  // namespace

CudaEngine::CudaEngine(const Backend& backend, uint32_t ordinal, const titan_device_options& options)
    : Engine(backend, std::max(1, static_cast<int>(options.threads))), ordinal_(checked_ordinal(ordinal)) {
  use();
  TITAN_CUDA_CHECK(cudaGetDeviceProperties(&properties_, ordinal_));
}

int CudaEngine::attribute(cudaDeviceAttr of) const {
  int value = 0;
  TITAN_CUDA_CHECK(cudaDeviceGetAttribute(&value, of, ordinal_));
  return value;
}

/// Whether other GPUs that this process sees can be reached from this one without the host. NVLink alone carries atomics, PCIe does not.
std::string CudaEngine::links() const {
  int reached = 0, by_nvlink = 0;
  for (int other = 0, count = number_of_gpus(); other < count; other++) {
    if (other == ordinal_) continue;
    int access = 0, atomics = 0;
    TITAN_CUDA_CHECK(cudaDeviceGetP2PAttribute(&access, cudaDevP2PAttrAccessSupported, ordinal_, other));
    TITAN_CUDA_CHECK(cudaDeviceGetP2PAttribute(&atomics, cudaDevP2PAttrNativeAtomicSupported, ordinal_, other));
    reached += access;
    by_nvlink += access && atomics;
  }
  return reached ? text(", ", by_nvlink ? "NVLink" : "PCIe", " to ", by_nvlink ? by_nvlink : reached, " more") : "";
}

void CudaEngine::describe(titan_device_info& info) const {
  use();
  // Clocks are in kHz; memory moves twice in each.
  const double bandwidth = 2e-6 * attribute(cudaDevAttrMemoryClockRate) * attribute(cudaDevAttrGlobalMemoryBusWidth) / 8;
  char speeds[96];
  std::snprintf(speeds, sizeof speeds, "%.1f GB at %.0f GB/s, %d multiprocessors at %.2f GHz", 1e-9 * static_cast<double>(properties_.totalGlobalMem), bandwidth, properties_.multiProcessorCount,
                1e-6 * attribute(cudaDevAttrClockRate));
  copy_text(info.threads_text, text(speeds, links()));
  info.kind = TITAN_DEVICE_CUDA;
  info.threads = static_cast<uint32_t>(threads);
  copy_text(info.level, text("sm_", properties_.major, properties_.minor));
  copy_text(info.processor, properties_.name);
  copy_text(info.product, Products::name());
}

MemoryLimit CudaEngine::memory(const MemorySharing&) const {
  use();
  size_t free = 0, total = 0;
  TITAN_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return {0, "", total, free};
}

double CudaEngine::measure(titan_measure measure, int64_t n, int threads) {
  use();
  if (measure == TITAN_MEASURE_BANDWIDTH) {
    const uint64_t bytes = static_cast<uint64_t>(n) * sizeof(float);
    const DeviceMemory memory = make_zeros(2 * bytes);
    const Tensor operands[] = {{memory.get(), DType::f32, 1, {n}, {1}}, {static_cast<char*>(memory.get()) + bytes, DType::f32, 1, {n}, {1}}};
    const Attribute add = {1};
    return 3e-9 * static_cast<double>(bytes) / least_seconds(find_kernel(backend, "accumulate"), nullptr, {operands, 2, &add, 1, 0, threads});
  }
  for (;; n *= 2) {
    const double seconds = product_seconds(n, measure == TITAN_MEASURE_PRODUCT_BF16, threads);
    if (seconds > LEAST_SECONDS || n > MOST_ROWS / 2) return 2e-9 * static_cast<double>(n * n * n) / seconds;
  }
}

double CudaEngine::product_seconds(int64_t n, bool narrow, int threads) {
  const uint64_t matrix_bytes = static_cast<uint64_t>(n * n) * sizeof(float);
  const DeviceMemory memory = make_device_memory(3 * matrix_bytes);
  Tensor operands[3];
  for (int i = 0; i < 3; i++) operands[i] = {static_cast<char*>(memory.get()) + static_cast<uint64_t>(i) * matrix_bytes, narrow && i < 2 ? DType::bf16 : DType::f32, 3, {1, n, n}, {n * n, n, 1}};
  fill(operands[0]), fill(operands[1]);
  const Attribute attributes[] = {{0}, {narrow}};
  const Call call = {operands, 3, attributes, 2, 0, threads};
  return least_seconds(find_kernel(backend, "gemm"), products().plan(call).get(), call);
}

const Products& CudaEngine::products() {
  if (!products_) products_ = std::make_unique<Products>(10 * properties_.major + properties_.minor);
  return *products_;
}

Plans CudaEngine::plan(const Program& program) const {
  Plans plans(program.instructions.size());
  for (size_t n = 0; n < plans.size(); n++) {
    const Instruction& instruction = program.instructions[n];
    try {
      if (is_product(*instruction.kernel)) plans[n] = products_->plan(instruction.call);
    } catch (const Failure& failure) {
      throw program.failure(failure.status(), n, text("instruction ", n, " (", instruction.kernel->name, " in ", instruction.scope, "): ", failure.what()));
    }
  }
  return plans;
}

std::unique_ptr<DeviceProgram> CudaEngine::load(Program& program, comm::World* world) {
  use();
  // Before the program is held against what is free: there is a workspace.
  if (std::any_of(program.instructions.begin(), program.instructions.end(), [](const Instruction& instruction) { return is_product(*instruction.kernel); })) (void)products();
  return std::make_unique<CudaProgram>(*this, program, world ? &world->ranks() : nullptr);
}

}  // namespace titan::cuda
