// gemm against sums in f64, within the bounds that product.h states: every stride pattern and storage, dims of 0 and 1, batches; libtitan's own
// product also on several blocks and threads, and a BLAS where there is one.
#include <limits>

#include "../cpu/blas.h"
#include "test.h"

using namespace titan;
using namespace titan::cpu;
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

template <class T> constexpr double EPSILON = std::is_same_v<T, double> ? 0x1p-53 : 0x1p-24;
template <class T> double rounded(T x, bool bf16_product) { return bf16_product ? double(bf16(float(x))) : double(x); }

/// Element (m, n) of batch i in f64, from operands that are rounded as the product rounds them, and how far from it the kernel may be (product.h).
struct Expected {
  double value, error;
  template <class A, class B, class C> Expected(const Array<A>& a, const Array<B>& b, const Array<C>&, double before, int64_t i, int64_t m, int64_t n, bool bf16_product) : value(before) {
    const int64_t M = a.dims[1], K = a.dims[2], N = b.dims[2];
    double size = std::fabs(before);
    for (int64_t k = 0; k < K; k++) {
      const double x = rounded(a[((a.dims[0] == 1 ? 0 : i) * M + m) * K + k], bf16_product), y = rounded(b[((b.dims[0] == 1 ? 0 : i) * K + k) * N + n], bf16_product);
      value += x * y;
      size += std::fabs(x * y);
    }
    error = double(K + 8) * EPSILON<C> * size;
    if (std::is_same_v<C, bf16>) error += 0x1p-8 * (std::fabs(value) + error);
  }
};

template <class A, class B, class C> void check_dims(int64_t M, int64_t N, int64_t K, int64_t batch, bool bf16_product) {
  const auto place = [&]<class T>(T, int64_t size, int64_t rows, int64_t columns) { return matrix<T>(size, rows, columns, engine() % 2, engine() % 2); };
  Array<A> a = place(A(), engine() % 2 ? batch : 1, M, K);
  Array<B> b = place(B(), engine() % 2 ? batch : 1, K, N);
  Array<C> c = place(C(), batch, M, N);
  const int64_t accumulate = pick({0, 1, 2});
  const bool adds = accumulate == 1;  // FIRST is set: 2 overwrites
  if (M && K) a.random(static_cast<unsigned>(engine()));
  if (N && K) b.random(static_cast<unsigned>(engine()));
  c.fill([&](int64_t i) { return adds ? double(i % 5) : std::numeric_limits<double>::quiet_NaN(); });
  CallBuilder builder;
  builder.add(a).add(b).add(c).integer(accumulate).integer(bf16_product);
  builder.flags = FLAG_FIRST;
  RUN(builder, gemm, static_cast<int>(pick({1, 2, 3, 4})));
  for (int64_t i = 0; i < batch * M * N; i++) {
    const Expected expected(a, b, c, adds ? double(i % 5) : 0, i / (M * N), i / N % M, i % N, bf16_product);
    EXPECT_NEAR(double(c[i]), expected.value, expected.error);
  }
  EXPECT(c.guarded());
}

template <class A, class B, class C> void check_case(bool bf16_product) {
  const int64_t M = pick({0, 1, 2, 7, 29, 64}), N = pick({0, 1, 3, 16, 33, 70}), K = pick({0, 1, 2, 5, 40, 67});
  check_dims<A, B, C>(M, N, K, pick({1, 1, 2, 3, 5}), bf16_product);
}

template <class T> Stored stored(Array<T>& array) { return {array.data(), dtype_of<T>(), array.strides[1], array.strides[2]}; }

/// libtitan's own product on some elements, and that the number of threads changes no bit.
template <class A, class B, class C> void check_own(int64_t M, int64_t N, int64_t K, bool bf16_product) {
  for (const bool a_by_columns : {false, true})
    for (const bool b_by_columns : {false, true}) {
      Array<A> a = matrix<A>(1, M, K, a_by_columns, true);
      Array<B> b = matrix<B>(1, K, N, b_by_columns, true);
      const bool adds = a_by_columns != b_by_columns;
      a.random(2);
      b.random(3);
      const auto multiply = [&](int threads) {
        Array<C> c = matrix<C>(1, M, N, false, true);
        c.fill([&](int64_t i) { return adds ? double(i % 5) : std::numeric_limits<double>::quiet_NaN(); });
        Product product{M, N, K, stored(a), stored(b), stored(c), adds, bf16_product};
        product.c.column = 1;
        multiply_own(product, threads);
        EXPECT(c.guarded());
        return c;
      };
      const Array<C> c = multiply(1);
      for (int64_t i = 0; i < M * N; i += std::max<int64_t>(1, M * N / 199)) {
        const Expected expected(a, b, c, adds ? double(i % 5) : 0, 0, i / N, i % N, bf16_product);
        EXPECT_NEAR(double(c[i]), expected.value, expected.error);
      }
      for (const int threads : {1, 2, 3, 4})
        if (!few_shapes() || (threads == 3 && a_by_columns && b_by_columns)) EXPECT(multiply(threads) == c);
    }
}

template <class A, class B, class C> void check_own_shapes(bool bf16_product) {
  if (EMULATED) return;  // the CPU's product alone
  check_own<A, B, C>(1, 1, 1, bf16_product);
  check_own<A, B, C>(1, 77, 33, bf16_product);
  const bool few = few_shapes();
  for (int64_t M = 2; M <= FEW_ROWS + 1; M++) few ? check_own<A, B, C>(M, 37, 75, bf16_product) : check_own<A, B, C>(M, 133, 301, bf16_product);
  check_own<A, B, C>(45, 1, 801, bf16_product);
  if (few) {  // the same blocks as below, each with as little in it as there can be
    check_own<A, B, C>(9, 1030, 801, bf16_product);
    check_own<A, B, C>(1030, 7, 801, bf16_product);
    check_own<A, B, C>(130, 20, 801, bf16_product);
    return;
  }
  check_own<A, B, C>(31, 1100, 1601, bf16_product);   // several blocks of columns and of K
  check_own<A, B, C>(1100, 45, 2 * 768, bf16_product);  // and of rows, where sums are held until they are rounded
  check_own<A, B, C>(13, 300, 2048, bf16_product);
  check_own<A, B, C>(301, 70, 901, bf16_product);  // several groups of rows, and of K within a block
}

template <class T> void check_blas() {
  for (const bool adds : {false, true}) {
    Array<T> a = matrix<T>(1, 31, 70, adds, true), b = matrix<T>(1, 70, 45, !adds, true), c = matrix<T>(1, 31, 45, false, true);
    a.random(2);
    b.random(3);
    c.fill([&](int64_t i) { return double(i % 5); });
    multiply_blas({31, 45, 70, stored(a), stored(b), stored(c), adds, false}, 2);
    for (int64_t i = 0; i < c.size(); i++) {
      const Expected expected(a, b, c, adds ? double(i % 5) : 0, 0, i / 45, i % 45, false);
      EXPECT_NEAR(double(c[i]), expected.value, expected.error);
    }
  }
}

/// What is not finite shows in the row or the column that it belongs to, and nowhere else.
template <class A, class B, class C> void check_not_finite(bool bf16_product) {
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  const int64_t M = 17, N = 37;
  for (const int64_t K : {1, 9, 33})
    for (const bool by_columns : {false, true}) {
      Array<A> a = matrix<A>(1, M, K, by_columns, false);
      Array<B> b = matrix<B>(1, K, N, !by_columns, false);
      Array<C> c({1, M, N});
      a.fill([&](int64_t i) { return i == 3 * K + K - 1 ? infinity : 1; });
      b.fill([&](int64_t i) { return i == (K - 1) * N + 35 ? nan : 2; });
      multiply_own({M, N, K, stored(a), stored(b), stored(c), false, bf16_product}, 2);
      for (int64_t i = 0; i < M * N; i++) EXPECT_NEAR(double(c[i]), i % N == 35 ? nan : i / N == 3 ? infinity : double(2 * K), 0);
    }
}

template <class A, class B, class C> void check_bf16() {
  for (int i = 0; i < (few_shapes() ? 40 : 80); i++) check_case<A, B, C>(true);
  check_own_shapes<A, B, C>(true);
  check_not_finite<A, B, C>(true);
}

void check_refusals() {
  Array<float> a({1, 4, 5}), b({1, 5, 6}), c({1, 4, 6}), other({1, 5, 7});
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

  Array<bf16> half({1, 5, 6});
  Array<double> wide({1, 5, 6});
  const auto refusal_of = [&](const auto& y, int64_t bf16_product) {
    CallBuilder builder;
    builder.add(a).add(y).add(c).integer(0).integer(bf16_product);
    return REFUSAL(builder, gemm);
  };
  EXPECT(refusal_of(half, 1).empty());
  EXPECT(!refusal_of(half, 0).empty());
  EXPECT(!refusal_of(wide, 1).empty());
  EXPECT(!refusal_of(b, 3).empty());
}

}  // namespace

int main() {
  for (int i = 0; i < (few_shapes() ? 100 : 300); i++) check_case<float, float, float>(false), check_case<double, double, double>(false);
  check_own_shapes<float, float, float>(false);
  check_own_shapes<double, double, double>(false);
  check_not_finite<float, float, float>(false);
  check_not_finite<double, double, double>(false);
  check_bf16<float, float, float>();
  check_bf16<float, float, bf16>();
  check_bf16<float, bf16, float>();
  check_bf16<float, bf16, bf16>();
  check_bf16<bf16, float, float>();
  check_bf16<bf16, float, bf16>();
  check_bf16<bf16, bf16, float>();
  check_bf16<bf16, bf16, bf16>();
  // Sums of many slices, on a GPU copied ahead of the products where rows lie in words.
  for (int i = 0; i < 12; i++) check_dims<bf16, bf16, float>(72, 136, 328, 1, true);
  check_dims<float, bf16, float>(72, 64, 320, 2, true);
  if (choose_multiplier(128) == Multiplier::blas) check_blas<float>(), check_blas<double>();
  check_refusals();
  return finish("gemm");
}
