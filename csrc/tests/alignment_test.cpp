// Kernels that go along rows in words of several elements: wherever rows lie, and whatever is left at their ends, a result has the same bits as that of
// rows that begin at whole words, and nothing beside it is written.
#include "test.h"

using namespace titan;
using namespace titan::test;

/// Rows of an operand that begin `offset` elements behind a word of 16 bytes, whose neighbours are `gap` elements apart.
template <class T>
struct Rows {
  static constexpr int64_t ROWS = 3;
  int64_t length, row, offset;
  Array<T> memory;

  Rows(int64_t length, int64_t offset, int64_t gap) : length(length), row(length + gap), offset(offset), memory({ROWS * row + 16}) {
    memory.fill([](int64_t) { return 77; });
    this->offset += int64_t((16 - reinterpret_cast<uintptr_t>(memory.data()) % 16) % 16 / sizeof(T));
  }
  T& at(int64_t n, int64_t d) { return memory.data()[offset + n * row + d]; }
  Rows& random(unsigned seed) {
    Array<T> numbers({ROWS, length});
    numbers.random(seed);
    for (int64_t i = 0; i < numbers.size(); i++) at(i / length, i % length) = numbers[i];
    return *this;
  }
  Tensor tensor() { return Tensor{&at(0, 0), dtype_of<T>(), 2, {ROWS, length}, {row, 1}}; }
  Tensor line() { return Tensor{&at(0, 0), dtype_of<T>(), 1, {length}, {1}}; }
  /// The bits of all rows; those of other places have not changed.
  std::vector<T> result() {
    std::vector<T> bits;
    std::vector<bool> own(size_t(memory.size()), false);
    for (int64_t n = 0; n < ROWS; n++)
      for (int64_t d = 0; d < length; d++) bits.push_back(at(n, d)), own[size_t(offset + n * row + d)] = true;
    for (int64_t i = 0; i < memory.size(); i++) EXPECT(own[size_t(i)] || double(memory.data()[i]) == 77);
    EXPECT(memory.guarded());
    return bits;
  }
};

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && !std::memcmp(a.data(), b.data(), a.size() * sizeof(T));
}

/// Runs `kernel` on operands at a place, and gives what it wrote: once at whole words, then at each place.
template <class T, class Run>
void at_each_place(const char* name, Run run) {
  for (int64_t length : {1, 3, 4, 7, 8, 9, 31, 64, 67}) {
    const int64_t whole = int64_t(16 / sizeof(T)), to_words = (whole - length % whole) % whole;
    const auto expected = run(length, 0, to_words);
    EXPECT(same(run(length, 0, to_words), expected));
    for (int64_t offset = 0; offset < whole; offset++)
      for (int64_t gap : {to_words, to_words + 1, to_words + whole / 2}) {
        const auto found = run(length, offset, gap);
        if (same(found, expected)) continue;
        std::printf("%s of %d elements, %d bytes of each, %d behind a word, %d between rows: other bits\n", name, int(length), int(sizeof(T)), int(offset), int(gap));
        failures++;
      }
  }
}

template <class T, class real>
void rows_of() {
  using Data = Rows<T>;
  Array<real> rstd({3});
  rstd.fill([](int64_t n) { return 0.5 + double(n); });
  const auto call = [](std::initializer_list<Tensor> operands) {
    CallBuilder builder;
    builder.operands = operands;
    return builder;
  };
  at_each_place<T>("add_rmsnorm", [&](int64_t length, int64_t offset, int64_t gap) {
    Data x(length, offset, gap), r(length, offset, gap), w(length, offset, gap), s(length, offset, gap), y(length, offset, gap);
    Array<real> made({3});
    auto builder = call({x.random(1).tensor(), r.random(2).tensor(), w.random(3).line(), s.tensor(), y.tensor(), made.tensor()}).real(1e-5);
    RUN(builder, add_rmsnorm, 1);
    auto bits = s.result(), more = y.result();
    bits.insert(bits.end(), more.begin(), more.end());
    return bits;
  });
  at_each_place<T>("rmsnorm_backward", [&](int64_t length, int64_t offset, int64_t gap) {
    Data x(length, offset, gap), w(length, offset, gap), dy(length, offset, gap), residual(length, offset, gap), dx(length, offset, gap), dw(length, offset, gap);
    for (int64_t d = 0; d < length; d++) dw.at(0, d) = T(0);
    auto builder = call({x.random(1).tensor(), rstd.tensor(), w.random(2).line(), dy.random(3).tensor(), residual.random(4).tensor(), dx.tensor(), dw.line()});
    builder.scratch(3 * length * int64_t(sizeof(real))).integer(0);
    RUN(builder, rmsnorm_backward, 1);
    auto bits = dx.result();
    for (int64_t d = 0; d < length; d++) bits.push_back(dw.at(0, d));
    return bits;
  });
  at_each_place<T>("embedding", [&](int64_t length, int64_t offset, int64_t gap) {
    Array<int32_t> ids({3});
    ids.fill([](int64_t n) { return double(2 - n); });
    Data table(length, offset, gap), y(length, offset, gap);
    auto builder = call({ids.tensor(), table.random(1).tensor(), y.tensor()}).integer(0).integer(3);
    RUN(builder, embedding, 1);
    return y.result();
  });
  at_each_place<T>("take and put_rows", [&](int64_t length, int64_t offset, int64_t gap) {
    Array<int32_t> ids({1, 3});
    ids.fill([](int64_t n) { return double(n == 1 ? -1 : 2 - n); });
    Data x(length, offset, gap), y(length, offset, gap), z(length, offset, gap);
    const auto parts = [](Data& rows) {
      const Tensor t = rows.tensor();
      return Tensor{t.data, t.dtype, 3, {1, t.dims[0], t.dims[1]}, {0, t.strides[0], 1}};
    };
    x.random(1);
    auto taken = call({parts(x), ids.tensor(), parts(y)}).integer(0);
    RUN(taken, take, 1);
    auto put = call({parts(x), ids.tensor(), parts(y), parts(z)}).integer(0);
    RUN(put, put_rows, 1);
    auto bits = y.result(), more = z.result();
    bits.insert(bits.end(), more.begin(), more.end());
    return bits;
  });
  at_each_place<T>("accumulate", [&](int64_t length, int64_t offset, int64_t gap) {
    Data x(length, offset, gap), y(length, offset, gap);
    auto builder = call({x.random(1).line(), y.random(2).line()}).integer(1);
    RUN(builder, accumulate, 1);
    return y.result();
  });
  at_each_place<T>("adamw", [&](int64_t length, int64_t offset, int64_t gap) {
    Data p(length, offset, gap), m(length, offset, gap), v(length, offset, gap), g(length, offset, gap);
    p.random(1), m.random(2), g.random(4), v.random(3);
    for (int64_t d = 0; d < length; d++) v.at(0, d) = T(std::fabs(double(v.at(0, d))));
    Array<real> lr({}), step({}), scale({});
    lr[0] = real(1e-2), step[0] = 3, scale[0] = 0.5;
    auto builder = call({p.line(), m.line(), v.line(), g.line(), lr.tensor(), step.tensor(), scale.tensor(), p.line(), m.line(), v.line()}).integer(1).real(0.9).real(0.95).real(1e-8).real(0.1);
    RUN(builder, adamw, 1);
    auto bits = p.result();
    for (auto* moment : {&m, &v}) {
      const auto more = moment->result();
      bits.insert(bits.end(), more.begin(), more.end());
    }
    return bits;
  });
}

/// Those whose rows are reals, or whose result is one number.
template <class T, class real>
void reals_of() {
  // A reduce of rows that lie one behind another is one row, whose sum has another order: so rows are summed each for itself.
  at_each_place<T>("sum_squares and reduce", [&](int64_t length, int64_t offset, int64_t gap) {
    Rows<T> x(length, offset, gap);
    x.random(1);
    Array<real> sum({}), totals({3, length}, {1, 0});
    CallBuilder squares, all;
    squares.operands = {x.line(), sum.tensor()};
    squares.scratch(8);
    RUN(squares, sum_squares, 1);
    all.operands = {x.tensor(), totals.tensor()};
    all.scratch(64).integer(0);
    RUN(all, reduce, 1);
    return std::vector<real>{sum[0], totals.data()[0], totals.data()[1], totals.data()[2]};
  });
  if constexpr (std::is_same_v<T, real>) {
    at_each_place<T>("softmax", [&](int64_t length, int64_t offset, int64_t gap) {
      Rows<T> x(length, offset, gap), y(length, offset, gap);
      CallBuilder builder;
      builder.operands = {x.random(1).tensor(), y.tensor()};
      RUN(builder, softmax, 1);
      return y.result();
    });
    at_each_place<T>("cross_entropy_backward", [&](int64_t length, int64_t offset, int64_t gap) {
      Rows<T> x(length, offset, gap), dx(length, offset, gap);
      Array<int32_t> targets({3});
      targets.fill([&](int64_t n) { return double(n % length); });
      Array<real> loss({}), count({}), lse({3}), dloss({});
      dloss[0] = 2;
      CallBuilder forward, backward;
      forward.operands = {x.random(1).tensor(), targets.tensor(), loss.tensor(), count.tensor(), lse.tensor()};
      forward.scratch(6 * int64_t(sizeof(real))).integer(-100);
      RUN(forward, cross_entropy, 1);
      backward.operands = {x.tensor(), targets.tensor(), lse.tensor(), dloss.tensor(), dx.tensor()};
      backward.integer(-100).integer(0);
      RUN(backward, cross_entropy_backward, 1);
      auto bits = dx.result();
      bits.push_back(loss[0]);
      return bits;
    });
  }
}

int main() {
  rows_of<float, float>();
  rows_of<bf16, float>();
  rows_of<double, double>();
  reals_of<float, float>();
  reals_of<bf16, float>();
  reals_of<double, double>();
  return finish("alignment");
}
