// gemm against sums in f64, through the platform's BLAS and through the built-in product: every stride pattern, dims of 0 and 1, batches.
#include <limits>

#include "../cpu/blas.h"
#include "test.h"

using namespace titan;
using namespace titan::test;

namespace {

std::mt19937 engine(1);
int64_t pick(std::initializer_list<int64_t> from) { return from.begin()[engine() % from.size()]; }

/// A matrix batch [B, R, C] stored by rows or by columns, rows apart by more than their length if `padded`; where a dim is 1, any stride.
template <class real> Array<real> matrix(int64_t B, int64_t R, int64_t C, bool by_columns, bool padded) {
  int64_t row = (by_columns ? 1 : C + 3 * padded), column = (by_columns ? R + 3 * padded : 1);
  const int64_t batch = by_columns ? column * C : row * R;
  if (R == 1 && padded) row = 0;
  if (C == 1 && padded) column = 5;
  if (R <= 0 || C <= 0 || B <= 0) {  // memory for one element, dims as asked
    Array<real> empty({1, 1, 1});
    empty.dims = {B, R, C};
    return empty;
  }
  return Array<real>({B, R, C}, {batch, row, column});
}

template <class real> void check_case(double tolerance) {
  const int64_t M = pick({0, 1, 2, 7, 29, 64}), N = pick({0, 1, 3, 16, 33, 70}), K = pick({0, 1, 2, 5, 40}), B = pick({1, 1, 2, 3, 5});
  const auto random_matrix = [&](int64_t batch, int64_t rows, int64_t columns) { return matrix<real>(batch, rows, columns, engine() % 2, engine() % 2); };
  Array<real> a = random_matrix(engine() % 2 ? B : 1, M, K), b = random_matrix(engine() % 2 ? B : 1, K, N), c = random_matrix(B, M, N);
  const int64_t accumulate = pick({0, 1, 2});
  const bool adds = accumulate == 1;  // FIRST is set: 2 overwrites
  if (M && K) a.random(static_cast<unsigned>(engine()));
  if (N && K) b.random(static_cast<unsigned>(engine()));
  c.fill([&](int64_t i) { return adds ? double(i % 5) : std::numeric_limits<double>::quiet_NaN(); });
  CallBuilder builder;
  builder.add(a).add(b).add(c).integer(accumulate).integer(0);
  builder.flags = FLAG_FIRST;
  RUN(builder, gemm, static_cast<int>(pick({1, 2, 3})));
  for (int64_t i = 0; i < B * M * N; i++) {
    const int64_t batch = i / (M * N), m = i / N % M, n = i % N;
    double expected = adds ? double(i % 5) : 0;
    for (int64_t k = 0; k < K; k++) expected += double(a[(a.dims[0] == 1 ? 0 : batch) * M * K + m * K + k]) * double(b[(b.dims[0] == 1 ? 0 : batch) * K * N + k * N + n]);
    EXPECT_NEAR(c[i], expected, tolerance);
  }
  EXPECT(c.guarded());
}

template <class real> void check_builtin(int64_t M, int64_t N, int64_t K, bool a_by_columns, bool b_by_columns, bool adds, int threads, double tolerance) {
  Array<real> a = matrix<real>(1, M, K, a_by_columns, true), b = matrix<real>(1, K, N, b_by_columns, true), c({1, M, N}), again({1, M, N});
  a.random(2);
  b.random(3);
  const auto multiply = [&](Array<real>& out) {
    out.fill([&](int64_t i) { return adds ? double(i % 5) : std::numeric_limits<double>::quiet_NaN(); });
    cpu::multiply_builtin<real>({M, N, K, a.data(), b.data(), out.data(), a.strides[1], a.strides[2], b.strides[1], b.strides[2], N, adds}, threads);
  };
  multiply(c);
  multiply(again);
  EXPECT(c == again);
  EXPECT(c.guarded());
  for (int64_t i = 0; i < M * N; i += std::max<int64_t>(1, M * N / 997)) {
    double expected = adds ? double(i % 5) : 0;
    for (int64_t k = 0; k < K; k++) expected += double(a[i / N * K + k]) * double(b[k * N + i % N]);
    EXPECT_NEAR(c[i], expected, tolerance);
  }
}

void check_refusals() {
  Array<float> a({1, 4, 5}), b({1, 5, 6}), c({1, 4, 6}), other({1, 5, 7}), double_b({1, 5, 6});
  const auto refusal = [](Array<float>& x, Array<float>& y, Array<float>& z, int64_t accumulate = 0) {
    CallBuilder builder;
    builder.add(x).add(y).add(z).integer(accumulate).integer(0);
    return REFUSAL(builder, gemm);
  };
  EXPECT(refusal(a, b, c).empty());
  EXPECT(!refusal(a, other, c).empty());
  EXPECT(!refusal(a, b, c, 3).empty());
  Array<float> no_unit_stride({1, 4, 5}, {40, 10, 2}), overlapping({1, 4, 6}, {24, 3, 1}), repeated({1, 4, 5}, {5, 0, 1}), batch({2, 4, 5});
  EXPECT(!refusal(no_unit_stride, b, c).empty());
  EXPECT(!refusal(a, b, overlapping).empty());
  EXPECT(!refusal(repeated, b, c).empty());
  EXPECT(!refusal(batch, b, c).empty());
}

}  // namespace

int main() {
  for (int i = 0; i < 600; i++) check_case<float>(1e-4), check_case<double>(1e-12);
  for (const bool a_by_columns : {false, true})
    for (const bool b_by_columns : {false, true})
      for (const int threads : {1, 2, 3, 4}) {
        check_builtin<float>(31, 1100, 800, a_by_columns, b_by_columns, threads % 2, threads, 1e-3);
        check_builtin<double>(230, 45, 385, a_by_columns, b_by_columns, threads % 2, threads, 1e-11);
        check_builtin<float>(1, 7, 3, a_by_columns, b_by_columns, threads % 2, threads, 1e-5);
        check_builtin<double>(17, 1, 1, a_by_columns, b_by_columns, threads % 2, threads, 1e-13);
      }
  check_refusals();
  return finish("gemm");
}
