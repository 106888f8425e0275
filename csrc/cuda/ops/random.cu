// Initial values: y = random numbers that depend on (seed, key, element index) alone, with the generator, the formulas and the order of operations of
// csrc/cpu/ops/random.cpp. Philox and the 53 bits that it gives are the same bits; in f64 without fused multiply-adds, so a uniform number is, too, and
// a normal one wherever the device's log and sqrt round as the C library's. Compute-bound, but it runs once in a training.
#include "../device.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

#ifdef __CUDA_ARCH__
__device__ double plus(double a, double b) { return __dadd_rn(a, b); }
__device__ double times(double a, double b) { return __dmul_rn(a, b); }
#else
__device__ double plus(double a, double b) { return a + b; }
__device__ double times(double a, double b) { return a * b; }
#endif

__device__ void philox(uint32_t k0, uint32_t k1, uint64_t counter, uint32_t& x0, uint32_t& x1) {
  uint32_t c0 = uint32_t(counter), c1 = uint32_t(counter >> 32), c2 = 0, c3 = 0;
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t(0xD2511F53) * c0, b = uint64_t(0xCD9E8D57) * c2;
    c0 = uint32_t(b >> 32) ^ c1 ^ k0, c1 = uint32_t(b), c2 = uint32_t(a >> 32) ^ c3 ^ k1, c3 = uint32_t(a);
    k0 += 0x9E3779B9, k1 += 0xBB67AE85;
  }
  x0 = c0, x1 = c1;
}
__device__ double uniform(uint32_t k0, uint32_t k1, uint64_t i) {
  uint32_t x0, x1;
  philox(k0, k1, i, x0, x1);
  const double u = plus(plus(times(double(x0 >> 5), 67108864.0), double(x1 >> 6)), 0.5) / 9007199254740992.0, most = 1 - 1.0 / 9007199254740992.0;
  return u < most ? u : most;
}

__device__ double ratio(double x, const double (&numerator)[8], const double (&denominator)[8]) {
  double n = numerator[7], d = denominator[7];
  for (int i = 6; i >= 0; i--) n = plus(times(n, x), numerator[i]), d = plus(times(d, x), denominator[i]);
  return n / d;
}
__device__ double quantile(double p) {
  constexpr double A[] = {3.3871328727963666080e0,  1.3314166789178437745e+2, 1.9715909503065514427e+3, 1.3731693765509461125e+4,
                          4.5921953931549871457e+4, 6.7265770927008700853e+4, 3.3430575583588128105e+4, 2.5090809287301226727e+3};
  constexpr double B[] = {1.0,                      4.2313330701600911252e+1, 6.8718700749205790830e+2, 5.3941960214247511077e+3,
                          2.1213794301586595867e+4, 3.9307895800092710610e+4, 2.8729085735721942674e+4, 5.2264952788528545610e+3};
  constexpr double C[] = {1.42343711074968357734e0, 4.63033784615654529590e0,  5.76949722146069140550e0,  3.64784832476320460504e0,
                          1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4};
  constexpr double D[] = {1.0,                       2.05319162663775882187e0,  1.67638483018380384940e0,  6.89767334985100004550e-1,
                          1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9};
  constexpr double E[] = {6.65790464350110377720e0,  5.46378491116411436990e0,  1.78482653991729133580e0,  2.96560571828504891230e-1,
                          2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7};
  constexpr double F[] = {1.0,                       5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
                          7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15};
  const double q = p - 0.5;
  if (std::fabs(q) <= 0.425) return times(q, ratio(plus(0.180625, -times(q, q)), A, B));
  const double r = std::sqrt(-std::log(q < 0 ? p : 1 - p)), x = r <= 5 ? ratio(r - 1.6, C, D) : ratio(r - 5, E, F);
  return q < 0 ? -x : x;
}

enum Kind { UNIFORM, NORMAL, TRUNCATED_NORMAL };
struct Numbers {
  int kind, rank;
  uint64_t key;
  double a, b, low, high, phi_low, phi_high;
  int64_t total, dims[MAX_RANK], strides[MAX_RANK], whole[MAX_RANK], starts[MAX_RANK], ends[MAX_RANK];
};

template <class real>
__global__ void random(const int32_t* seed, int64_t seed_stride, Elements<real> y, Numbers c) {
  const uint32_t k0 = uint32_t(seed[0]) ^ uint32_t(c.key), k1 = uint32_t(seed[seed_stride]) ^ uint32_t(c.key >> 32);
  for_each(c.total, [&](int64_t n) {
    int64_t offset = 0, rest = n;
    uint64_t index = 0, stride = 1;
    bool inside = true;
    for (int d = c.rank - 1; d >= 0; d--) {
      const int64_t own = rest % c.dims[d];
      const uint64_t at = uint64_t(c.starts[d]) + uint64_t(own);
      offset += own * c.strides[d], index += at * stride, inside &= at < uint64_t(c.ends[d]);
      rest /= c.dims[d], stride *= uint64_t(c.whole[d]);
    }
    if (!inside) return y.put(offset, 0);
    const double u = uniform(k0, k1, index);
    if (c.kind == UNIFORM) return y.put(offset, real(plus(c.a, times(c.b - c.a, u))));
    if (c.kind == NORMAL) return y.put(offset, real(plus(c.a, times(c.b, quantile(u)))));
    const double x = plus(c.a, times(c.b, quantile(plus(c.phi_low, times(u, c.phi_high - c.phi_low)))));
    y.put(offset, real(x < c.low ? c.low : x > c.high ? c.high : x));
  });
}

double phi(double z) { return 0.5 * std::erfc(-z / std::sqrt(2.0)); }

}  // namespace

void run_random(const Call& call) {
  const Tensor &seed = call[0], &y = call[1];
  const Attribute* const a = call.attributes;
  Numbers c = {};
  c.kind = int(a[0].i), c.key = uint64_t(a[1].i), c.a = a[2].f, c.b = a[3].f, c.low = a[4].f, c.high = a[5].f;
  c.phi_low = phi((c.low - c.a) / c.b), c.phi_high = phi((c.high - c.a) / c.b);
  c.rank = y.rank, c.total = count(y);
  const Attribute *const whole = a + 7, *const starts = whole + y.rank + 1, *const ends = starts + y.rank + 1;
  for (int d = 0; d < y.rank; d++) c.dims[d] = y.dims[d], c.strides[d] = y.strides[d], c.whole[d] = whole[d].i, c.starts[d] = starts[d].i, c.ends[d] = ends[d].i;
  with_real(y, [&](auto zero) { launch(random<decltype(zero)>, {blocks_for(c.total, BLOCK_THREADS), BLOCK_THREADS}, call, seed.as<int32_t>(), seed.strides[0], Elements<decltype(zero)>(y), c); });
}

}  // namespace titan::cuda
