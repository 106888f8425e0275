// cumsum against a plain loop: along every dim, exclusive, reverse, in place, strided; i32 wraps around; the same bits for any number of threads.
#include "test.h"

using namespace titan;
using namespace titan::test;

/// CPUs sum in the order of the loop; CUDA's kernel in another, which only a sum of f64 shows.
template <class T>
bool agrees(const Array<T>& actual, const Array<T>& expected) {
#ifdef TITAN_CUDA_EMULATED
  if (std::is_same_v<T, double>) {
    for (int64_t i = 0; i < actual.size(); i++)
      if (!(std::fabs(double(actual[i]) - double(expected[i])) <= 1e-4)) return false;  // of sums beyond 1e9
    return actual.guarded();
  }
#endif
  return actual == expected;
}

template <class T>
void running(std::vector<int64_t> dims, int dim, bool exclusive, bool reverse) {
  std::vector<int64_t> strides(dims.size());
  int64_t stride = 1;
  for (size_t d = 0; d < dims.size(); d++) strides[d] = stride, stride *= dims[d] + 1;  // the first dim is the dense one
  Array<T> x(dims, strides), y(dims), again(dims);
  x.random(3, 1e9);
  int64_t inner = 1;
  for (size_t d = size_t(dim) + 1; d < dims.size(); d++) inner *= dims[d];
  const int64_t n = dims[size_t(dim)];
  Array<T> expected = y;
  for (int64_t line = 0; line < x.size() / n; line++) {
    const int64_t start = line / inner * n * inner + line % inner;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
      const int64_t at = start + (reverse ? n - 1 - i : i) * inner;
      const double next = sum + double(x[at]), value = exclusive ? sum : next;
      expected[at] = std::is_same_v<T, int32_t> ? T(uint32_t(int64_t(value))) : T(value);
      sum = next;
    }
  }
  auto call = [&](Array<T>& to, const Array<T>& from, int threads) {
    CallBuilder builder;
    builder.add(from).add(to).integer(dim).integer(exclusive).integer(reverse);
    RUN(builder, cumsum, threads);
  };
  call(y, x, 1), call(again, x, 3);
  EXPECT(agrees(y, expected));
  EXPECT(agrees(again, expected));
  Array<T> place(dims);
  for (int64_t i = 0; i < x.size(); i++) place[i] = x[i];
  call(place, place, 2);
  EXPECT(agrees(place, expected));
}

int main() {
  for (bool exclusive : {false, true})
    for (bool reverse : {false, true})
      for (int dim : {0, 1, 2}) {
        running<float>({3, 5, 9}, dim, exclusive, reverse), running<double>({3, 5, 9}, dim, exclusive, reverse);
        running<int32_t>({3, 5, 9}, dim, exclusive, reverse);
      }
  running<double>({1000}, 0, false, false);
  Array<float> x({2, 3}), y({2, 3}, {1, 2});
  Array<int32_t> integers({2, 3});
  REFUSES(CallBuilder().add(x).add(y).integer(2).integer(0).integer(0), cumsum, "dim is 2; expected: 0 to 1");
  REFUSES(CallBuilder().add(x).add(y).integer(0).integer(2).integer(0), cumsum, "exclusive is 2; expected: 0 to 1");
  REFUSES(CallBuilder().add(x).add(integers).integer(0).integer(0).integer(0), cumsum, "y is i32; expected: f32 as x");
  REFUSES(CallBuilder().add(Array<bf16>({2})).add(Array<bf16>({2})).integer(0).integer(0).integer(0), cumsum, "x is bf16; expected: f32, f64 or i32");
  return finish("cumsum");
}
