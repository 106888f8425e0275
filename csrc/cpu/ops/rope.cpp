// Rotary position embedding on adjacent pairs.
//   rope_table   table[n, 2i] = cos(p f_i), table[n, 2i+1] = sin(p f_i) with p = positions[n], f_i = theta^(-2i/K) for i < K/2; angles in f64.
//                factor > 1 stretches f_i as Llama 3.1 does: wavelengths beyond original/low are divided by factor, those below
//                original/high are kept, and between them the two are mixed linearly in original/wavelength
//   rope         y[n,h] = x[n,h] with each pair turned by the angles of table[n]; inverse 1 turns back. May be in place; x and y may be bf16
// The table is compute-bound but small and made once a step; rope is memory-bound (attention rotates on its own while it loads).
#include <cmath>

#include "../kernels.h"
#include "../parallel.h"
#include "../storage.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

constexpr int64_t MOST_K = 1024;

template <class real>
void rope_table(const Call& call) {
  const Tensor &positions = call[0], &table = call[1];
  const int64_t K = table.dims[1];
  const double theta = call.attributes[0].f, factor = call.attributes[1].f, low = call.attributes[2].f, high = call.attributes[3].f, original = call.attributes[4].f;
  double frequencies[MOST_K / 2];
  for (int64_t i = 0; i < K / 2; i++) {
    const double f = std::pow(theta, -double(2 * i) / double(K));
    double kept = 1;
    if (factor != 1) kept = std::fmin(1, std::fmax(0, (original * f / (2 * M_PI) - low) / (high - low)));
    frequencies[i] = kept * f + (1 - kept) * f / factor;
  }
  constexpr int64_t ANGLE = 16;  // times as long as an element of other kernels
  for_each_of(table.dims[0], ANGLE * K, call.threads, [&](int64_t n) {
    const double p = positions.as<int32_t>()[n * positions.strides[0]];
    real* row = table.as<real>() + n * table.strides[0];
    for (int64_t i = 0; i < K / 2; i++) {
      row[2 * i] = real(std::cos(p * frequencies[i]));
      row[2 * i + 1] = real(std::sin(p * frequencies[i]));
    }
  });
}

template <class S>
void rope(const Call& call) {
  using real = computed<S>;
  const Tensor &x = call[0], &table = call[1], &y = call[2];
  const int64_t N = x.dims[0], H = x.dims[1], K = x.dims[2];
  const real direction = call.attributes[0].i ? -1 : 1;
  for_each_of(N, H * K, call.threads, [&](int64_t n) {
    for (int64_t h = 0; h < H; h++) {
      const Row<S> from(x, n * x.strides[0] + h * x.strides[1]), to(y, n * y.strides[0] + h * y.strides[1]);
      const real* angles = table.as<real>() + n * table.strides[0];
      for_lanes<real>(K, [&](int64_t k, int64_t lanes) { to.store(k, rotate<real>(from.load(k, lanes), load(angles + k, lanes), direction), lanes); });
    }
  });
}

}  // namespace

void run_rope_table(const Call& call) {
  with_real(call[1].dtype, [&](auto zero) { rope_table<decltype(zero)>(call); });
}
void run_rope(const Call& call) {
  with_storage(call, [&](auto storage) { rope<decltype(storage)>(call); });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
std::string check_rope_table(const Call& call) {
  Check check(call, {"positions", "table"}, 5);
  const DType real = check.real(1);
  const int64_t K = check.dim(1, 1);
  check.operand(1, real, {-1, -1}).operand(0, DType::i32, {check.dim(1, 0)}).rows(1).writable(1);
  check.require(K % 2 == 0 && K <= MOST_K, "the head size is " + std::to_string(K) + "; expected: even and at most " + std::to_string(MOST_K));
  if (!check.ok()) return check.error();
  const Attribute* a = call.attributes;
  check.require(a[0].f > 0, "theta is " + std::to_string(a[0].f) + "; expected: more than 0");
  check.require(a[1].f == 1 || (a[1].f > 0 && a[2].f > 0 && a[3].f > a[2].f && a[4].f > 0),
                "factor, low, high, original are " + std::to_string(a[1].f) + ", " + std::to_string(a[2].f) + ", " + std::to_string(a[3].f) + ", " + std::to_string(a[4].f) + "; expected: factor 1, or all above 0 and low < high");
  return check.error();
}
std::string check_rope(const Call& call) {
  Check check(call, {"x", "table", "y"}, 1);
  const DType real = check.real_or_bf16(0);
  const int64_t N = check.dim(0, 0), H = check.dim(0, 1), K = check.dim(0, 2);
  check.real_or_bf16(0, real, {N, H, K}).operand(1, real, {N, K}).real_or_bf16(2, real, {N, H, K}).rows(0).rows(1).rows(2).writable(2).in_place(0, 2);
  return check.require(K % 2 == 0, "the head size is " + std::to_string(K) + "; expected: an even one").error();
}
}  // namespace titan::cpu
#endif
