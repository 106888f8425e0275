// The product of few rows with a matrix whose columns lie in one piece each, such as the weights of a layer when tokens are decoded. It is bound by
// reading B once: each thread goes through its columns from front to back, where the processor's own prefetch follows, and nothing is packed.
// A column is multiplied with all rows while it is in registers; the rows stay in L1 or L2. With 16 rows, packing is as fast.
#include "packing.h"
#include "parallel.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

/// sums[m] = a[m, K] . b[K], for M rows that lie `row` apart.
template <class Math, int M, class A, class B> TITAN_INLINE void multiply_column(const A* a, int64_t row, const B* b, int64_t K, typename Math::sum (&sums)[M]) {
  using real = typename Math::sum;
  constexpr int SIDE = M == 1 ? 4 : M == 2 ? 2 : 1;  // sums of a row side by side, as an addition takes longer than loading its operands
  constexpr int64_t STEP = LANES<real> * Math::PAIR;
  vec<real> lanes[SIDE][M] = {};
  const auto add = [&](vec<real> (&to)[M], int64_t k, int64_t count) {
    const vec<real> column = in_register(Math::along(b + k, count));
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) Math::add(to[m], Math::along(a + m * row + k, count), column);
  };
  int64_t k = 0;
  for (; k + SIDE * STEP <= K; k += SIDE * STEP)
#pragma GCC unroll 4
    for (int s = 0; s < SIDE; s++) add(lanes[s], k + s * STEP, STEP);
  for (; k < K; k += STEP) add(lanes[0], k, K - k);
#pragma GCC unroll 8
  for (int m = 0; m < M; m++) {
#pragma GCC unroll 4
    for (int s = 1; s < SIDE; s++) lanes[0][m] += lanes[s][m];
    sums[m] = sum_lanes<real>(lanes[0][m]);
  }
}

template <class Math, int M> void multiply_columns(const Product& p, Span columns) {
  with_stored<Math>(p.a, [&](const auto* a) {
    with_stored<Math>(p.b, [&](const auto* b) {
      for (int64_t n = columns.first; n < columns.end; n++) {
        typename Math::sum sums[M];
        multiply_column<Math, M>(a, p.a.row, b + n * p.b.column, p.K, sums);
        with_stored<Math>(p.c, [&]<class C>(C* c) {
          for (int m = 0; m < M; m++) {
            C& to = c[m * p.c.row + n];
            to = C(p.adds ? typename Math::sum(to) + sums[m] : sums[m]);
          }
        });
      }
    });
  });
}

template <class Math, int... M> void multiply(const Product& p, int threads, std::integer_sequence<int, M...>) {
  constexpr void (*by_rows[])(const Product&, Span) = {multiply_columns<Math, M + 1>...};
  const auto multiply_columns = by_rows[p.M - 1];
  if (threads == 1 || in_parallel()) return multiply_columns(p, {0, p.N});
  for_each(threads, threads, [&](int64_t i) { multiply_columns(p, part({0, p.N}, 64 / int64_t(sizeof(typename Math::sum)), i, threads)); });
}

}  // namespace

bool is_of_few_rows(const Product& p) {
  if (size_of(p.a.dtype) == 1 || size_of(p.b.dtype) == 1) return false;  // no decoding multiplies float8
  return p.M <= FEW_ROWS && (p.a.column == 1 || p.K == 1) && (p.b.row == 1 || p.K == 1);
}

void multiply_few_rows(const Product& p, int threads) {
  constexpr std::make_integer_sequence<int, FEW_ROWS> rows;
  if (p.bf16) multiply<Bf16>(p, threads, rows);
  else if (p.c.dtype == DType::f64) multiply<Plain<double>>(p, threads, rows);
  else multiply<Plain<float>>(p, threads, rows);
}

}  // namespace titan::cpu::inline TITAN_LEVEL
