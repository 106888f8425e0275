// What the kernel tests share: owned tensors, a call under construction, comparisons. A failed EXPECT prints itself and makes the program exit 1.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../backend.h"
#include "../cpu/backend.h"
#ifdef TITAN_CUDA_EMULATED
#include "../cuda/host/emulator.h"
#include "../cuda/kernels.h"
#endif

namespace titan::test {

/// Do kernels run in the emulator of CUDA, thousands of times slower than on a processor? Then large cases are left out.
#ifdef TITAN_CUDA_EMULATED
constexpr bool EMULATED = true;
#else
constexpr bool EMULATED = false;
#endif

inline int failures = 0;
#define EXPECT(condition)                                                        \
  do {                                                                           \
    if (!(condition)) {                                                          \
      std::printf("%s:%d: expected %s\n", __FILE__, __LINE__, #condition);       \
      titan::test::failures++;                                                   \
    }                                                                            \
  } while (0)
#define EXPECT_NEAR(actual, expected, tolerance)                                                                                  \
  do {                                                                                                                            \
    const double a_ = (actual), e_ = (expected), t_ = (tolerance);                                                                \
    if (!(std::fabs(a_ - e_) <= t_ || (std::isnan(a_) && std::isnan(e_)) || a_ == e_)) {                                          \
      if (titan::test::failures++ < 20) std::printf("%s:%d: %s is %.17g, expected %.17g within %g\n", __FILE__, __LINE__, #actual, a_, e_, t_); \
    }                                                                                                                             \
  } while (0)

inline int finish(const char* name) {
  std::printf("%s: %s\n", name, failures ? "FAILED" : "ok");
  return failures ? 1 : 0;
}

template <class T>
constexpr DType dtype_of() {
  return std::is_same_v<T, double> ? DType::f64 : std::is_same_v<T, float> ? DType::f32 : std::is_same_v<T, int32_t> ? DType::i32 : std::is_same_v<T, bf16> ? DType::bf16 : std::is_same_v<T, f8e4m3> ? DType::f8e4m3 : std::is_same_v<T, f8e5m2> ? DType::f8e5m2 : DType::bytes;
}

/// Are shapes few and small? In an emulator, where a product takes a hundred times as long, tests take every kind of case, but fewer of each.
inline bool few_shapes() {
  if (EMULATED) return true;
  const char* shapes = std::getenv("TITAN_TEST_SHAPES");
  return shapes && std::string(shapes) == "few";
}

/// The kernel of this name, of the level that TITAN_CPU names (else the best of this machine), or CUDA's in the emulator.
inline const Kernel& kernel(const char* name) {
  static const Backend& backend = cpu::choose_level().backend;
#ifdef TITAN_CUDA_EMULATED
  static const auto kernels = cuda::kernels(backend.kernels);
#else
  const auto* const kernels = backend.kernels;
#endif
  for (int i = 0; i < backend.num_kernels; i++)
    if (!std::strcmp(kernels[i].name, name)) return kernels[i];
  std::printf("there is no kernel %s\n", name);
  std::abort();
}

/// Memory with guard elements on both sides, seen through dims and strides (row-major unless given).
template <class T>
struct Array {
  static constexpr int GUARD = 32;
  std::vector<int64_t> dims, strides;
  std::vector<T> memory;

  Array(std::vector<int64_t> d, std::vector<int64_t> s = {}) : dims(std::move(d)), strides(std::move(s)) {
    if (strides.empty()) {
      strides.assign(dims.size(), 1);
      for (int i = int(dims.size()) - 2; i >= 0; i--) strides[size_t(i)] = strides[size_t(i) + 1] * dims[size_t(i) + 1];
    }
    int64_t last = 0;
    for (size_t i = 0; i < dims.size(); i++) last += (dims[i] - 1) * strides[i];
    memory.assign(size_t(last + 1 + 2 * GUARD), T(77));
  }
  T* data() { return memory.data() + GUARD; }
  const T* data() const { return memory.data() + GUARD; }
  int64_t size() const {
    int64_t n = 1;
    for (int64_t d : dims) n *= d;
    return n;
  }
  int64_t offset(int64_t flat) const {
    int64_t o = 0;
    for (int i = int(dims.size()) - 1; i >= 0; i--) o += flat % dims[size_t(i)] * strides[size_t(i)], flat /= dims[size_t(i)];
    return o;
  }
  /// Element by row-major index, whatever the strides.
  T& operator[](int64_t flat) { return data()[offset(flat)]; }
  const T& operator[](int64_t flat) const { return data()[offset(flat)]; }
  Array& fill(std::function<double(int64_t)> f) {
    for (int64_t i = 0; i < size(); i++) (*this)[i] = T(f(i));
    return *this;
  }
  Array& random(unsigned seed, double scale = 1) {
    std::mt19937 engine(seed);
    std::normal_distribution<double> normal;
    return fill([&](int64_t) { return scale * normal(engine); });
  }
  bool guarded() const {
    for (int i = 0; i < GUARD; i++)
      if (memory[size_t(i)] != T(77) || memory[memory.size() - 1 - size_t(i)] != T(77)) return false;
    return true;
  }
  bool operator==(const Array& other) const { return memory.size() == other.memory.size() && !std::memcmp(memory.data(), other.memory.data(), memory.size() * sizeof(T)); }
  Tensor tensor() const {
    Tensor t{const_cast<T*>(data()), dtype_of<T>(), int(dims.size()), {}, {}};
    for (size_t i = 0; i < dims.size(); i++) t.dims[i] = dims[i], t.strides[i] = strides[i];
    return t;
  }
};

/// A call that owns its operand and attribute lists.
struct CallBuilder {
  std::vector<Tensor> operands;
  std::vector<Attribute> attributes;
  std::vector<char> scratch_memory;
  uint32_t flags = 0;

  template <class T>
  CallBuilder& add(const Array<T>& array) {
    operands.push_back(array.tensor());
    return *this;
  }
  CallBuilder& absent() {
    operands.push_back(Tensor{nullptr, DType::f32, 0, {}, {}});
    return *this;
  }
  CallBuilder& scratch(int64_t bytes) {
    scratch_memory.assign(size_t(bytes) + 256, char(0x7f));
    char* start = scratch_memory.data() + (256 - reinterpret_cast<uintptr_t>(scratch_memory.data()) % 256) % 256;
    operands.push_back(Tensor{start, DType::bytes, 1, {bytes}, {1}});
    return *this;
  }
  CallBuilder& integer(int64_t value) {
    Attribute a;
    a.i = value;
    attributes.push_back(a);
    return *this;
  }
  CallBuilder& real(double value) {
    Attribute a;
    a.f = value;
    attributes.push_back(a);
    return *this;
  }
  Call call(int threads) const { return Call{operands.data(), int(operands.size()), attributes.data(), int(attributes.size()), flags, threads}; }
  /// Checks, prepares, then runs; a refusal counts as a failure.
  void run(const Kernel& kernel, int threads) const {
    Call made = call(threads);
    const std::string error = kernel.check(made);
    if (!error.empty()) {
      std::printf("refused: %s\n", error.c_str());
      failures++;
      return;
    }
    struct alignas(64) Line {
      char bytes[64];
    };
    std::vector<Line> state(kernel.prepare ? (kernel.state_bytes(made) + 63) / 64 : 0);
    if (kernel.prepare) kernel.prepare(made, state.data());
    made.state = state.data();
    kernel.run(made);
#ifdef TITAN_CUDA_EMULATED
    failures += !cuda::host::take_error().empty();
#endif
  }
};
#define RUN(builder, name, threads) (builder).run(titan::test::kernel(#name), threads)
/// Why the kernel refuses this call ("" when it does not).
#define REFUSAL(builder, name) titan::test::kernel(#name).check((builder).call(1))
#define REFUSES(builder, name, part)                                                                                    \
  do {                                                                                                                  \
    const std::string refusal = REFUSAL(builder, name);                                                                 \
    if (refusal.find(part) == std::string::npos) {                                                                      \
      std::printf("%s:%d: the refusal is \"%s\", expected \"%s\"\n", __FILE__, __LINE__, refusal.c_str(), std::string(part).c_str()); \
      titan::test::failures++;                                                                                          \
    }                                                                                                                   \
  } while (0)

inline double tolerance(DType dtype, double f32, double f64) { return dtype == DType::f64 ? f64 : f32; }

}  // namespace titan::test
