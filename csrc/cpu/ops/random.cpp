// Initial values: y = random numbers that depend on (seed, key, element index) alone, never on threads, vector width or layout. y may be bf16.
//
// y is the box of a tensor of dims `whole` that begins at `starts`, and 0 from `ends` on. Its element whose row-major index in the whole is i takes Philox 4x32-10 (Salmon et al., SC'11; Random123's constants) with
//   counter = (lo32(i), hi32(i), 0, 0)        key = (seed[0] ^ lo32(key), seed[1] ^ hi32(key))        key: the attribute, a hash of the parameter's name
// whose first two output words x0, x1 give 53 bits:   u = min(((x0 >>> 5) 2^26 + (x1 >>> 6) + 1/2) / 2^53,  1 - 2^-53)   in (0, 1)
// All arithmetic is f64 in the order written, without fused multiply-adds; the result is cast to the dtype of y at the end (to bf16 by way of f32).
//   kind 0  uniform on [a, b)          a + (b - a) u
//   kind 1  normal, mean a, std b      a + b quantile(u)
//   kind 2  the same, cut to [low, high]   l = Phi((low - a) / b), h = Phi((high - a) / b):   min(max(a + b quantile(l + u (h - l)), low), high)
// Phi(z) = erfc(-z / sqrt(2)) / 2, with C's erfc. quantile is PPND16 of M. J. Wichura, "Algorithm AS 241: the percentage points of
// the normal distribution", Applied Statistics 37 (1988), relative error about 1e-16; its coefficients are below, constant term first.
// Compute-bound (some 20 ns a number), but it runs once in a training.
#include <algorithm>

#include "../kernels.h"
#include "../parallel.h"
#include "../storage.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off")
#elif defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

void philox(const uint32_t (&key)[2], uint64_t counter, uint32_t* x0, uint32_t* x1) {
  uint32_t c[4] = {uint32_t(counter), uint32_t(counter >> 32), 0, 0}, k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t(0xD2511F53) * c[0], b = uint64_t(0xCD9E8D57) * c[2];
    const uint32_t next[4] = {uint32_t(b >> 32) ^ c[1] ^ k0, uint32_t(b), uint32_t(a >> 32) ^ c[3] ^ k1, uint32_t(a)};
    std::copy_n(next, 4, c);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  *x0 = c[0];
  *x1 = c[1];
}

double uniform(const uint32_t (&key)[2], uint64_t i) {
  uint32_t x0, x1;
  philox(key, i, &x0, &x1);
  const double u = (double(x0 >> 5) * 67108864.0 + double(x1 >> 6) + 0.5) / 9007199254740992.0;
  return std::min(u, 1 - 1.0 / 9007199254740992.0);  // the sum above rounds to even where u > 1/2, and may reach 1
}

double ratio(double x, const double (&numerator)[8], const double (&denominator)[8]) {
  double n = numerator[7], d = denominator[7];
  for (int i = 6; i >= 0; i--) n = n * x + numerator[i], d = d * x + denominator[i];
  return n / d;
}

double quantile(double p) {
  static constexpr double A[] = {3.3871328727963666080e0,  1.3314166789178437745e+2, 1.9715909503065514427e+3, 1.3731693765509461125e+4,
                                 4.5921953931549871457e+4, 6.7265770927008700853e+4, 3.3430575583588128105e+4, 2.5090809287301226727e+3};
  static constexpr double B[] = {1.0,                      4.2313330701600911252e+1, 6.8718700749205790830e+2, 5.3941960214247511077e+3,
                                 2.1213794301586595867e+4, 3.9307895800092710610e+4, 2.8729085735721942674e+4, 5.2264952788528545610e+3};
  static constexpr double C[] = {1.42343711074968357734e0, 4.63033784615654529590e0,  5.76949722146069140550e0,  3.64784832476320460504e0,
                                 1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4};
  static constexpr double D[] = {1.0,                       2.05319162663775882187e0,  1.67638483018380384940e0,  6.89767334985100004550e-1,
                                 1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9};
  static constexpr double E[] = {6.65790464350110377720e0,  5.46378491116411436990e0,  1.78482653991729133580e0,  2.96560571828504891230e-1,
                                 2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7};
  static constexpr double F[] = {1.0,                       5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
                                 7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15};
  const double q = p - 0.5;
  if (std::fabs(q) <= 0.425) return q * ratio(0.180625 - q * q, A, B);
  const double r = std::sqrt(-std::log(q < 0 ? p : 1 - p));
  const double x = r <= 5 ? ratio(r - 1.6, C, D) : ratio(r - 5, E, F);
  return q < 0 ? -x : x;
}

double phi(double z) { return 0.5 * std::erfc(-z / std::sqrt(2.0)); }

enum Kind { UNIFORM, NORMAL, TRUNCATED_NORMAL };

/// The attributes behind the first six: whole, starts and ends, each its length and then one word for each dim.
struct Box {
  const Attribute *whole, *starts, *ends;
  explicit Box(const Call& call) : whole(call.attributes + 7), starts(whole + call[1].rank + 1), ends(starts + call[1].rank + 1) {}

  struct Element {
    int64_t offset;  // in y
    uint64_t index;  // in the whole
    bool inside;
  };
  /// Element i of y, row-major.
  Element operator()(const Tensor& y, int64_t i) const {
    Element element = {0, 0, true};
    uint64_t stride = 1;
    for (int d = y.rank - 1; d >= 0; i /= y.dims[d], stride *= uint64_t(whole[d].i), d--) {
      const int64_t own = i % y.dims[d];
      const uint64_t at = uint64_t(starts[d].i) + uint64_t(own);
      element.offset += own * y.strides[d];
      element.index += at * stride;
      element.inside &= at < uint64_t(ends[d].i);
    }
    return element;
  }
};

template <class T>
void random(const Call& call) {
  const int32_t* seed = call[0].as<int32_t>();
  const uint64_t name = uint64_t(call.attributes[1].i);
  const uint32_t key[2] = {uint32_t(seed[0]) ^ uint32_t(name), uint32_t(seed[call[0].strides[0]]) ^ uint32_t(name >> 32)};
  const int64_t kind = call.attributes[0].i;
  const double a = call.attributes[2].f, b = call.attributes[3].f, low = call.attributes[4].f, high = call.attributes[5].f;
  const double phi_low = phi((low - a) / b), phi_high = phi((high - a) / b);
  T* y = call[1].as<T>();
  const Box box(call);
  const int64_t n = elements(call[1]);
  for_each(n, call.threads, [&](int64_t i) {
    const auto [offset, index, inside] = box(call[1], i);
    const double u = uniform(key, index);
    if (!inside) y[offset] = T(0.);
    else if (kind == UNIFORM) y[offset] = T(a + (b - a) * u);
    else if (kind == NORMAL) y[offset] = T(a + b * quantile(u));
    else y[offset] = T(std::min(std::max(a + b * quantile(phi_low + u * (phi_high - phi_low)), low), high));
  });
}

}  // namespace

void run_random(const Call& call) {
  with_stored(call[1], [&](auto y) { random<decltype(y)>(call); });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
std::string check_random(const Call& call) {
  Check check(call, {"seed", "y"}, 9);
  check.real_or_bf16(1);
  if (!check.operand(0, DType::i32, {2}).writable(1).ok()) return check.error();
  const Attribute* attributes = call.attributes;
  const int64_t kind = attributes[0].i;
  check.require(kind >= UNIFORM && kind <= TRUNCATED_NORMAL, "kind is " + std::to_string(kind) + "; expected: 0 (uniform), 1 (normal) or 2 (truncated normal)");
  check.require(kind == UNIFORM || attributes[3].f > 0, "b, the standard deviation, is " + std::to_string(attributes[3].f) + "; expected: more than 0");
  check.require(kind != TRUNCATED_NORMAL || attributes[4].f < attributes[5].f, "low is " + std::to_string(attributes[4].f) + " and high " + std::to_string(attributes[5].f) + "; expected: low < high");
  const int rank = call[1].rank;
  const Box box(call);
  check.require(call.num_attributes == 6 + 3 * (1 + rank) && box.whole[-1].i == rank && box.starts[-1].i == rank && box.ends[-1].i == rank,
                "whole, starts and ends differ from y in length; expected: " + std::to_string(rank) + " numbers each, one for each dim");
  for (int d = 0; check.ok() && d < rank; d++)
    check.require(box.starts[d].i >= 0 && box.ends[d].i >= 0 && box.ends[d].i <= box.whole[d].i,
                  "the box of dim " + std::to_string(d) + " starts at " + std::to_string(box.starts[d].i) + " and ends at " + std::to_string(box.ends[d].i) + "; expected: numbers inside of the whole, " + std::to_string(box.whole[d].i));
  return check.error();
}
}  // namespace titan::cpu
#endif
