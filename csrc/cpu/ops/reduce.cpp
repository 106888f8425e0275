// y = sum (kind 0), maximum (kind 1) or largest size (kind 2, the maximum of |x|) of x over any dims; x may be bf16. y is viewed with x's dims and has stride 0 on the reduced ones.
// Memory-bound. The dims are split into kept and reduced, ordered by x's strides and merged. Then either
//   across  the innermost contiguous dim of x is kept: a strip of columns is summed down the reduced dims, one register per LANES columns
//   along   else: each element of y sums its own runs of x
// Sums are kept in short f32 runs of at most RUN additions whose results are added in f64. Few long sums (a scalar, say) are cut into PARTS
// fixed pieces, combined in order from scratch: the same bits for any number of threads. A NaN in x is a NaN in y, also for the maximum.
#include <algorithm>
#include <cmath>
#include <limits>

#include "../kernels.h"
#include "../parallel.h"
#include "../storage.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

constexpr int64_t RUN = 64, PARTS = 64, MOST_PARTIALS = 4096, LONG = 32768;

/// Some dims of x (and y), outermost first.
struct Dims {
  int rank = 0;
  int64_t sizes[MAX_RANK], x[MAX_RANK], y[MAX_RANK], total = 1;

  void insert(int64_t size, int64_t x_stride, int64_t y_stride) {
    int k = rank++;
    for (; k > 0 && x[k - 1] < x_stride; k--) sizes[k] = sizes[k - 1], x[k] = x[k - 1], y[k] = y[k - 1];
    sizes[k] = size, x[k] = x_stride, y[k] = y_stride, total *= size;
  }
  void merge() {
    int n = 0;
    for (int d = 0; d < rank; d++) {
      if (n && x[n - 1] == x[d] * sizes[d] && y[n - 1] == y[d] * sizes[d]) sizes[n - 1] *= sizes[d];
      else sizes[n++] = sizes[d];
      x[n - 1] = x[d], y[n - 1] = y[d];
    }
    rank = n;
  }
  int64_t inner() const { return rank ? sizes[rank - 1] : 1; }
  int64_t inner_stride() const { return rank ? x[rank - 1] : 1; }
  /// Places of row-major element i in x and in y.
  int64_t at_x(int64_t i) const { return place(x, i); }
  int64_t at_y(int64_t i) const { return place(y, i); }

 private:
  int64_t place(const int64_t* strides, int64_t i) const {
    int64_t at = 0;
    for (int d = rank - 1; d >= 0; i /= sizes[d], d--) at += i % sizes[d] * strides[d];
    return at;
  }
};

template <class real>
struct Sum {
  static constexpr double identity = 0;
  static vec<real> of(vec<real> x) { return x; }
  static double of(double x) { return x; }
  static vec<real> join(vec<real> a, vec<real> b) { return a + b; }
  static double join(double a, double b) { return a + b; }
  static double lanes(vec<real> v) { return double(sum_lanes<real>(v)); }
};
template <class real>
struct Max {
  static constexpr double identity = -std::numeric_limits<double>::infinity();
  static vec<real> of(vec<real> x) { return x; }
  static double of(double x) { return x; }
  static vec<real> join(vec<real> a, vec<real> b) { return maximum(a, b); }
  static double join(double a, double b) { return a > b || a != a ? a : b; }
  static double lanes(vec<real> v) { return double(max_lanes<real>(v)); }
};

template <class real>
struct MaxSize : Max<real> {
  static constexpr double identity = 0;
  static vec<real> of(vec<real> x) { return (vec<real>)((ivec<real>)x & splat_integer<real>(std::numeric_limits<integer<real>>::max())); }
  static double of(double x) { return std::fabs(x); }
};

/// Elements [begin, end) of the reduced dims, from x on.
template <class S, class real, class Op>
double along(const S* x, const Dims& reduced, int64_t begin, int64_t end) {
  double total = Op::identity;
  const int64_t inner = reduced.inner(), stride = reduced.inner_stride();
  for (int64_t i = begin; i < end;) {
    const int64_t n = std::min({end - i, inner - i % inner, 4 * RUN * LANES<real>});
    const S* run = x + reduced.at_x(i);
    int64_t k = 0;
    if (stride == 1 && n >= 4 * LANES<real>) {
      vec<real> sums[4];
      for (int c = 0; c < 4; c++) sums[c] = Op::of(load(run + c * LANES<real>));
      for (k = 4 * LANES<real>; k + 4 * LANES<real> <= n; k += 4 * LANES<real>)
        for (int c = 0; c < 4; c++) sums[c] = Op::join(sums[c], Op::of(load(run + k + c * LANES<real>)));
      total = Op::join(total, Op::lanes(Op::join(Op::join(sums[0], sums[1]), Op::join(sums[2], sums[3]))));
    }
    for (; k < n; k++) total = Op::join(total, Op::of(double(run[k * stride])));
    i += n;
  }
  return total;
}

/// `columns` (at most 4 LANES) neighbouring columns down all reduced dims.
template <class S, class real, class Op>
void across(const S* x, const Dims& reduced, int64_t columns, double* totals) {
  constexpr int L = LANES<real>;
  std::fill_n(totals, columns, Op::identity);
  const int vectors = int((columns + L - 1) / L);
  const int64_t inner = reduced.inner(), stride = reduced.inner_stride();
  for (int64_t i = 0; i < reduced.total;) {
    const int64_t n = std::min({reduced.total - i, inner - i % inner, RUN});
    const S* run = x + reduced.at_x(i);
    vec<real> sums[4];
    auto each = [&](auto f) {
      for (int c = 0; c < vectors; c++) f(c, std::min<int64_t>(L, columns - c * L));
    };
    if (columns == 4 * L) {
      for (int c = 0; c < 4; c++) sums[c] = Op::of(load(run + c * L));
      for (int64_t k = 1; k < n; k++)
        for (int c = 0; c < 4; c++) sums[c] = Op::join(sums[c], Op::of(load(run + k * stride + c * L)));
    } else {
      each([&](int c, int64_t lanes) { sums[c] = Op::of(load(run + c * L, lanes)); });
      for (int64_t k = 1; k < n; k++) each([&](int c, int64_t lanes) { sums[c] = Op::join(sums[c], Op::of(load(run + k * stride + c * L, lanes))); });
    }
    each([&](int c, int64_t lanes) {
      for (int64_t l = 0; l < lanes; l++) totals[c * L + l] = Op::join(totals[c * L + l], double(sums[c][l]));
    });
    i += n;
  }
}

template <class S, class real, class Op>
void reduce(const Call& call) {
  const Tensor &x = call[0], &y = call[1];
  Dims kept, reduced;
  for (int d = 0; d < x.rank; d++)
    if (x.dims[d] != 1) (y.strides[d] ? kept : reduced).insert(x.dims[d], x.strides[d], y.strides[d]);
  kept.merge();
  reduced.merge();
  const S* from = x.as<S>();
  real* to = y.as<real>();

  if (kept.rank && kept.inner_stride() == 1 && (!reduced.rank || reduced.inner_stride() != 1)) {
    const int64_t strip = 4 * LANES<real>, strips = (kept.inner() + strip - 1) / strip, rows = kept.inner() ? kept.total / kept.inner() : 0;
    for_each(rows * strips, call.threads, [&](int64_t task) {
      const int64_t column = task % strips * strip, columns = std::min(strip, kept.inner() - column), first = task / strips * kept.inner() + column;
      double totals[4 * LANES<real>];
      across<S, real, Op>(from + kept.at_x(first), reduced, columns, totals);
      for (int64_t c = 0; c < columns; c++) to[kept.at_y(first) + c * kept.y[kept.rank - 1]] = real(totals[c]);
    });
  } else if (kept.total * PARTS <= MOST_PARTIALS && reduced.total >= LONG) {
    double* const partials = call[2].as<double>();
    for_each(kept.total * PARTS, call.threads, [&](int64_t task) {
      const int64_t part = task % PARTS;
      partials[task] = along<S, real, Op>(from + kept.at_x(task / PARTS), reduced, reduced.total * part / PARTS, reduced.total * (part + 1) / PARTS);
    });
    for (int64_t i = 0; i < kept.total; i++) {
      double total = partials[i * PARTS];
      for (int64_t part = 1; part < PARTS; part++) total = Op::join(total, partials[i * PARTS + part]);
      to[kept.at_y(i)] = real(total);
    }
  } else {
    for_each(kept.total, call.threads, [&](int64_t i) { to[kept.at_y(i)] = real(along<S, real, Op>(from + kept.at_x(i), reduced, 0, reduced.total)); });
  }
}

}  // namespace

void run_reduce(const Call& call) {
  with_stored(call[0], [&](auto zero) {
    using S = decltype(zero);
    using real = computed<S>;
    const int64_t kind = call.attributes[0].i;
    if (kind == 0) reduce<S, real, Sum<real>>(call);
    else if (kind == 1) reduce<S, real, Max<real>>(call);
    else reduce<S, real, MaxSize<real>>(call);
  });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
std::string check_reduce(const Call& call) {
  Check check(call, {"x", "y", "scratch"}, 1);
  const DType real = check.real_or_bf16(0);
  if (!check.ok()) return check.error();
  const Tensor &x = call[0], &y = call[1];
  check.require(y.dtype == real, std::string("y is ") + name_of(y.dtype) + "; expected: " + name_of(real) + " as x");
  check.require(x.rank == y.rank && std::equal(x.dims, x.dims + x.rank, y.dims), "y is viewed with dims " + to_text(y.dims, y.rank) + "; expected: those of x, " + to_text(x.dims, x.rank) + ", with stride 0 where reduced");
  if (check.ok()) check.scratch(2, std::min<int64_t>(32768, (elements(x) + 255) / 256) * int64_t(sizeof(double)));  // as graph/target/cpu/rows.ts gives it
  const int64_t kind = call.attributes[0].i;
  return check.require(kind >= 0 && kind <= 2, "kind is " + std::to_string(kind) + "; expected: 0 (sum), 1 (max) or 2 (max_abs)").error();
}
}  // namespace titan::cpu
#endif
