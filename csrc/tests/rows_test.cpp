// take, scatter_add and put_rows against plain loops: ids of no row, equal ids, slices, strided rows, every dtype, in place, any number of threads.
#include "test.h"

using namespace titan;
using namespace titan::test;

/// Ids [B,K] from -1 to N, some of them equal, with strides.
Array<int32_t> ids_of(int64_t B, int64_t K, int64_t N) {
  Array<int32_t> ids({B, K}, {2 * K + 1, 2});
  ids.fill([&](int64_t i) { return double(i * i * 7 % (N + 2) - 1); });
  return ids;
}

template <class T>
void rows(int64_t B, int64_t N, int64_t K, int64_t D, int64_t start) {
  const Array<int32_t> ids = ids_of(B, K, start + N);
  auto row_of = [&](int64_t b, int64_t k) { return ids[b * K + k] - start; };
  auto inside = [&](int64_t n) { return n >= 0 && n < N; };
  Array<T> x({B, N, D}, {N * (D + 3) + 1, D + 3, 1}), more({B, K, D}, {K * (D + 1), D + 1, 1});
  x.fill([](int64_t i) { return double(i % 91 + 1); }), more.fill([](int64_t i) { return double(i % 83 + 100); });

  for (int threads : {1, 2, 3}) {
    Array<T> y({B, K, D}, {K * (D + 2), D + 2, 1});
    CallBuilder take;
    take.add(x).add(ids).add(y).integer(start);
    RUN(take, take, threads);
    for (int64_t i = 0; i < B * K * D; i++) {
      const int64_t b = i / D / K, n = row_of(b, i / D % K);
      EXPECT(float(y[i]) == (inside(n) ? float(x[(b * N + n) * D + i % D]) : 0));
    }
    EXPECT(y.guarded());

    Array<T> put({B, N, D}, {N * (D + 1), D + 1, 1}), expected = put, place = x, own = x;
    expected.fill([&](int64_t i) { return double(x[i]); });
    for (auto* to : {&expected, &own})
      for (int64_t i = 0; i < B * K * D; i++)
        if (const int64_t b = i / D / K, n = row_of(b, i / D % K); inside(n)) (*to)[(b * N + n) * D + i % D] = more[i];
    CallBuilder put_rows, in_place;
    put_rows.add(x).add(ids).add(more).add(put).integer(start);
    in_place.add(place).add(ids).add(more).add(place).integer(start);
    RUN(put_rows, put_rows, threads);
    RUN(in_place, put_rows, threads);
    EXPECT(put == expected);
    EXPECT(place == own);
  }
}

template <class real>
void sums(int64_t B, int64_t N, int64_t K, int64_t D, int64_t start) {
  const Array<int32_t> ids = ids_of(B, K, start + N);
  Array<real> rows({B, K, D}, {K * (D + 1), D + 1, 1});
  rows.random(1);
  for (int threads : {1, 2, 3}) {
    Array<real> y({B, N, D}, {N * (D + 2), D + 2, 1}), expected = y;
    expected.fill([](int64_t) { return 0; });
    for (int64_t b = 0; b < B; b++)
      for (int64_t k = 0; k < K; k++)
        if (const int64_t n = ids[b * K + k] - start; n >= 0 && n < N)
          for (int64_t d = 0; d < D; d++) expected[(b * N + n) * D + d] += rows[(b * K + k) * D + d];
    CallBuilder call;
    call.add(ids).add(rows).add(y).integer(start);
    RUN(call, scatter_add, threads);
    EXPECT(y == expected);
  }
}

int main() {
  for (int64_t start : {0, 2})
    for (int64_t B : {1, 5})
      for (int64_t D : {1, 7, 33, 200}) {
        rows<float>(B, 6, 9, D, start), rows<double>(B, 6, 9, D, start), rows<int32_t>(B, 6, 9, D, start), rows<bf16>(B, 6, 9, D, start);
        sums<float>(B, 6, 9, D, start), sums<double>(B, 6, 9, D, start);
      }
  Array<float> x({1, 4, 3}), more({1, 2, 3}), wrong({1, 2, 4});
  Array<int32_t> ids({1, 2}), integers({1, 2, 3});
  REFUSES(CallBuilder().add(x).add(ids).add(wrong).integer(0), take, "operand 2 (y) has dims [1, 2, 4]; expected: [1, 2, 3]");
  REFUSES(CallBuilder().add(x).add(ids).add(integers).integer(0), take, "operand 2 (y) is i32; expected: f32");
  REFUSES(CallBuilder().add(x).add(more).add(more).integer(0), take, "operand 1 (ids) is f32; expected: i32");
  REFUSES(CallBuilder().add(ids).add(integers).add(x).integer(0), scatter_add, "operand 1 (rows) is i32; expected: f32 or f64");
  REFUSES(CallBuilder().add(x).add(ids).add(more).integer(-1), take, "start is -1; expected: 0 or more");
  REFUSES(CallBuilder().add(x).add(ids).add(more).add(Array<float>({1, 4, 3}, {12, 0, 1})).integer(0), put_rows, "stride 0");
  Tensor turned = x.tensor();
  turned.strides[1] = 4;
  CallBuilder moved;
  moved.add(x).add(ids).add(more).add(x).integer(0);
  moved.operands[3] = turned;
  REFUSES(moved, put_rows, "y begins where x does and has other strides");
  return finish("rows");
}
