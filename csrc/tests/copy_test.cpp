// copy and accumulate over permuted, padded, repeated and empty views of rank 0 to 6, in every dtype.
#include <algorithm>
#include <numeric>

#include "test.h"

using namespace titan;
using namespace titan::test;

namespace {

std::mt19937 engine(1);

/// Row-major memory seen through its dims in a random order, sometimes with gaps.
template <class T> Array<T> permuted(const std::vector<int64_t>& dims) {
  std::vector<size_t> order(dims.size());
  std::iota(order.begin(), order.end(), size_t{0});
  if (engine() % 3) std::shuffle(order.begin(), order.end(), engine);
  std::vector<int64_t> strides(dims.size());
  int64_t stride = 1 + engine() % 4 / 3;
  for (size_t d : order) strides[d] = stride, stride *= dims[d] + engine() % 3 / 2;
  return Array<T>(dims, strides);
}

template <class T> void check_copy_case() {
  std::vector<int64_t> dims(engine() % 7);
  for (int64_t& dim : dims) dim = 1 + engine() % (dims.size() > 3 ? 4 : 70);
  Array<T> x = permuted<T>(dims), y = permuted<T>(dims);
  if (!dims.empty() && engine() % 4 == 0) x.strides[engine() % dims.size()] = 0;  // a repeated dim
  x.fill([](int64_t i) { return double(i % 1013); });
  CallBuilder builder;
  builder.add(x).add(y);
  RUN(builder, copy, 1 + static_cast<int>(engine() % 3));
  for (int64_t i = 0; i < y.size(); i++) EXPECT_NEAR(y[i], x[i], 0);
  EXPECT(y.guarded());
}

template <class real> void check_accumulate_case() {
  std::vector<int64_t> dims(engine() % 4);
  for (int64_t& dim : dims) dim = 1 + engine() % 60;
  Array<real> x = permuted<real>(dims), y = permuted<real>(dims);
  x.fill([](int64_t i) { return double(i % 1013); });
  for (const uint32_t flags : {0u, uint32_t(FLAG_FIRST)})
    for (int64_t accumulate = 0; accumulate < 3; accumulate++) {
      y.fill([](int64_t i) { return double(i % 7); });
      CallBuilder builder;
      builder.add(x).add(y).integer(accumulate);
      builder.flags = flags;
      RUN(builder, accumulate, 2);
      const bool adds = accumulate == 1 || (accumulate == 2 && !flags);
      for (int64_t i = 0; i < y.size(); i++) EXPECT_NEAR(y[i], x[i] + (adds ? real(i % 7) : 0), 0);
      EXPECT(y.guarded());
    }
}

void check_large() {
  Array<float> x({300, 200}, {1, 300}), y({300, 200});  // a transposition over many blocks
  x.random(1);
  CallBuilder transposition;
  transposition.add(x).add(y);
  RUN(transposition, copy, 2);
  for (int64_t i = 0; i < y.size(); i++) EXPECT_NEAR(y[i], x[i], 0);
  Array<double> row({50000}), copied({50000});  // one row, several blocks
  row.random(2);
  CallBuilder whole;
  whole.add(row).add(copied);
  RUN(whole, copy, 2);
  EXPECT(row == copied);
}

void check_empty_and_refused() {
  Array<float> x({1, 1}), y({1, 1});
  x.dims = y.dims = {0, 5};
  CallBuilder empty;
  empty.add(x).add(y);
  RUN(empty, copy, 2);
  EXPECT(y.guarded());
  Array<float> a({2, 3}), b({3, 2}), repeated({2, 3}, {0, 1});
  Array<int32_t> integers({2, 3});
  CallBuilder dims, dtypes, twice, integer_sum;
  EXPECT(!REFUSAL(dims.add(a).add(b), copy).empty());
  EXPECT(!REFUSAL(dtypes.add(integers).add(a), copy).empty());
  EXPECT(!REFUSAL(twice.add(a).add(repeated), copy).empty());
  EXPECT(!REFUSAL(integer_sum.add(integers).add(integers).integer(1), accumulate).empty());
}

}  // namespace

int main() {
  for (int i = 0; i < 100; i++) check_copy_case<float>(), check_copy_case<double>(), check_copy_case<int32_t>();
  for (int i = 0; i < 30; i++) check_accumulate_case<float>(), check_accumulate_case<double>();
  check_large();
  check_empty_and_refused();
  return finish("copy");
}
