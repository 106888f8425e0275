// reduce: sums and maxima over every subset of the dims, against f64 loops; long sums; NaN; the same bits for any number of threads.
#include "test.h"

using namespace titan;
using namespace titan::test;

/// Scratch as programs give it.
template <class T>
int64_t scratch_of(const Array<T>& x) {
  return 8 * std::min<int64_t>(32768, (x.size() + 255) / 256);
}

template <class real>
void every_subset(std::vector<int64_t> dims, std::vector<int64_t> x_strides) {
  const int rank = int(dims.size());
  Array<real> x(dims, x_strides);
  x.random(unsigned(rank));
  for (int subset = 0; subset < 1 << rank; subset++)
    for (int kind = 0; kind < 3; kind++) {
      std::vector<int64_t> strides(dims.size());
      int64_t size = 1;
      for (int d = rank - 1; d >= 0; d--)
        if (!(subset >> d & 1)) strides[size_t(d)] = size, size *= dims[size_t(d)];
      std::vector<double> expected(size_t(size), kind == 1 ? -INFINITY : 0), sizes(size_t(size), 0);
      Array<real> y(dims, strides);
      for (int64_t i = 0; i < x.size(); i++) {
        double& e = expected[size_t(y.offset(i))];
        e = kind ? std::max(e, kind == 2 ? std::fabs(double(x[i])) : double(x[i])) : e + double(x[i]);
        sizes[size_t(y.offset(i))] += std::fabs(double(x[i]));
      }
      Array<real> results[2] = {y, y};
      for (int threads : {1, 2}) {
        CallBuilder call;
        call.add(x).add(results[threads - 1]).scratch(scratch_of(x)).integer(kind);
        RUN(call, reduce, threads);
      }
      EXPECT(results[0] == results[1]);
      EXPECT(results[0].guarded());
      for (int64_t i = 0; i < size; i++) EXPECT_NEAR(double(results[0].data()[i]), expected[size_t(i)], sizes[size_t(i)] * (sizeof(real) == 4 ? 2e-7 : 1e-15));
    }
}

template <class real>
void not_a_number() {
  for (int64_t at : {0, 17, 4999})
    for (int inner = 0; inner < 2; inner++) {
      Array<real> x({5000, 3}), y({5000, 3}, inner ? std::vector<int64_t>{1, 0} : std::vector<int64_t>{0, 1});
      x.random(1);
      x[at * 3 + 1] = real(NAN);
      CallBuilder call;
      call.add(x).add(y).scratch(scratch_of(x)).integer(1);
      RUN(call, reduce, 2);
      EXPECT(std::isnan(y[at * 3 + 1]));
      EXPECT(!std::isnan(y[inner ? (at + 1) % 5000 * 3 : 0]));
    }
}

/// 0.1 a million times: a plain f32 sum would be off by 1 %.
void long_sum() {
  constexpr int64_t N = EMULATED ? 100000 : 1000000;
  Array<float> x({N}), y({N}, {0});
  x.fill([](int64_t) { return 0.1; });
  CallBuilder call;
  call.add(x).add(y).scratch(scratch_of(x)).integer(0);
  RUN(call, reduce, 2);
  EXPECT_NEAR(double(y[0]), N * 0.1, N * 1e-7);
}

template <class real>
void all() {
  every_subset<real>({}, {});
  every_subset<real>({5}, {});
  if (!EMULATED) every_subset<real>({70000}, {});
  if (!EMULATED || sizeof(real) == 4) every_subset<real>({2, 33001}, {});
  every_subset<real>({70, 32}, {});
  every_subset<real>({9, 65}, {66, 1});
  every_subset<real>({3, 4, 5}, {});
  every_subset<real>({2, 130, 77}, {});
  every_subset<real>({6, 1, 300}, {1, 1, 6});
  every_subset<real>({4, 50, 64}, {64, 256, 1});
  every_subset<real>({3, 200, 40}, {0, 100, 1});
  not_a_number<real>();
}

void too_little_scratch() {
  Array<float> x({2, 40000}), y({2, 40000}, {1, 0});
  CallBuilder call;
  call.add(x).add(y).scratch(2496).integer(0);
  EXPECT(REFUSAL(call, reduce) == "operand 2 (scratch) holds 2496 bytes; expected: at least 2504");
}

int main() {
  all<float>();
  all<double>();
  long_sum();
  too_little_scratch();
  return finish("reduce");
}
