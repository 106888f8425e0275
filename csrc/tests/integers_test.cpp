// integer_map against plain arithmetic, wrapping around, on strided and repeated operands; integer_cast at the ends of i32, of NaN, of every real.
#include <algorithm>
#include <limits>

#include "../signature.h"
#include "test.h"

using namespace titan;
using namespace titan::test;

constexpr int32_t LEAST = std::numeric_limits<int32_t>::min(), MOST = std::numeric_limits<int32_t>::max();

void maps() {
  Array<int32_t> a({3, 5}, {1, 4}), b({3, 5}, {0, 1}), c({3, 5});
  a.fill([](int64_t i) { return i % 5 == 0 ? LEAST : i % 5 == 1 ? MOST : double(i - 7); });
  b.fill([](int64_t i) { return i % 5 == 4 ? MOST : double(i % 5 - 2); });
  c.fill([](int64_t i) { return double(i % 3 - 1); });
  auto apply = [&](MapOperation operation, auto f) {
    for (int threads : {1, 3}) {
      Array<int32_t> y({3, 5}, {7, 1});
      CallBuilder call;
      if (operation == MAP_select) call.add(c);
      call.add(a).add(b).add(y).integer(operation).integer(0);
      RUN(call, integer_map, threads);
      for (int64_t i = 0; i < 15; i++) EXPECT(y[i] == int32_t(uint32_t(int64_t(f(int64_t(a[i]), int64_t(b[i]), c[i])))));
      EXPECT(y.guarded());
    }
  };
  using I = int64_t;
  apply(MAP_add, [](I x, I y, int32_t) { return x + y; });
  apply(MAP_sub, [](I x, I y, int32_t) { return x - y; });
  apply(MAP_mul, [](I x, I y, int32_t) { return x * y; });
  apply(MAP_maximum, [](I x, I y, int32_t) { return std::max(x, y); });
  apply(MAP_minimum, [](I x, I y, int32_t) { return std::min(x, y); });
  apply(MAP_less, [](I x, I y, int32_t) { return I(x < y); });
  apply(MAP_less_equal, [](I x, I y, int32_t) { return I(x <= y); });
  apply(MAP_equal, [](I x, I y, int32_t) { return I(x == y); });
  apply(MAP_select, [](I x, I y, int32_t z) { return z ? x : y; });
  Array<int32_t> value({}), all({2, 3});
  RUN(CallBuilder().add(value).integer(0).integer(-5), integer_map, 1);
  RUN(CallBuilder().add(all).integer(0).integer(LEAST), integer_map, 2);
  EXPECT(value[0] == -5 && all[5] == LEAST);
}

template <class T>
void cast() {
  const double numbers[] = {0, -0.0, 0.9, -0.9, 1.5, -2.5, 120, -3e9, 3e9, INFINITY, -INFINITY, NAN};
  const int32_t expected[] = {0, 0, 0, 0, 1, -2, 120, LEAST, MOST, MOST, LEAST, 0};
  Array<T> x({12}, {2});
  Array<int32_t> y({12});
  x.fill([&](int64_t i) { return numbers[i]; });
  RUN(CallBuilder().add(x).add(y), integer_cast, 2);
  for (int64_t i = 0; i < 12; i++) EXPECT(y[i] == expected[i]);
}

int main() {
  maps();
  cast<float>(), cast<double>(), cast<bf16>();
  Array<int32_t> a({2}), b({3});
  Array<float> x({2});
  REFUSES(CallBuilder().add(a).add(a).integer(MAP_add).integer(0), integer_map, "has 1 operands; expected: one of integers");
  REFUSES(CallBuilder().add(a).add(a).add(a).integer(MAP_div).integer(0), integer_map, "has 2 operands; expected: one of integers");
  REFUSES(CallBuilder().add(a).add(b).add(a).integer(MAP_add).integer(0), integer_map, "operand 1 has dims [3]; expected: [2] as y");
  REFUSES(CallBuilder().add(a).add(x).add(a).integer(MAP_add).integer(0), integer_map, "x[1] is f32; expected: i32");
  REFUSES(CallBuilder().add(a).integer(0).integer(int64_t(MOST) + 1), integer_map, "value is 2147483648; expected: one that i32 holds");
  REFUSES(CallBuilder().add(x).add(x), integer_cast, "y is f32; expected: i32");
  REFUSES(CallBuilder().add(a).add(a), integer_cast, "operand 0 (x) is i32; expected: f32, f64 or bf16");
  return finish("integers");
}
