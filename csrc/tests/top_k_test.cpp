// top_k against a stable sort: ties by index, NaN first, every K, strided rows.
#include <algorithm>
#include <numeric>

#include "test.h"

using namespace titan;
using namespace titan::test;

template <class real>
void largest(int64_t N, int64_t D, int64_t K, int values_of) {
  Array<real> x({N, D}, {D + 3, 1}), values({N, K}, {K + 1, 1});
  Array<int32_t> ids({N, K}, {K + 2, 1});
  x.random(unsigned(D + K)).fill([&](int64_t i) { return values_of ? double(i * i % values_of) : double(x[i]); });
  if (D > 4) x[2] = x[4] = real(NAN), x[1] = real(INFINITY), x[3] = real(-INFINITY);
  for (int threads : {1, 3}) {
    CallBuilder call;
    call.add(x).add(values).add(ids);
    RUN(call, top_k, threads);
    for (int64_t n = 0; n < N; n++) {
      std::vector<int64_t> order(static_cast<size_t>(D));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) {
        const real a = x[n * D + i], b = x[n * D + j];
        return std::isnan(a) ? !std::isnan(b) : a > b;
      });
      for (int64_t k = 0; k < K; k++) {
        EXPECT(ids[n * K + k] == order[size_t(k)]);
        EXPECT(!std::memcmp(&values[n * K + k], &x[n * D + order[size_t(k)]], sizeof(real)));
      }
    }
    EXPECT(values.guarded() && ids.guarded());
  }
}

int main() {
  for (int64_t D : {1, 3, 8, 100})
    for (int64_t K : {int64_t(1), std::min<int64_t>(2, D), D})
      for (int values : {0, 3}) largest<float>(7, D, K, values), largest<double>(7, D, K, values);
  Array<float> x({2, 3}), values({2, 4});
  Array<int32_t> ids({2, 4});
  REFUSES(CallBuilder().add(x).add(values).add(ids), top_k, "values has 4 elements a row; expected: 1 to 3");
  REFUSES(CallBuilder().add(x).add(values).add(values), top_k, "operand 2 (ids) is f32; expected: i32");
  return finish("top_k");
}
