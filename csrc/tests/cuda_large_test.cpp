// Calls as large as the models that GPUs train make them, with more elements than 32 bits count, over memory that is mapped but hardly touched: the last
// block of each launch, run alone, gives what a small call of that end of the operands gives.
#include <sys/mman.h>

#include "test.h"

using namespace titan;
using namespace titan::test;

/// Of dim `dim` of operand `operand` the last `keep`, or the first.
struct Cut {
  int operand, dim;
  int64_t keep;
  bool first = false;
};
/// Where a call says in an attribute at which place a slice begins, its end has another.
struct Begin {
  int attribute;
  int64_t value;
};

/// A call whose operands lie one behind another in a mapping that has no memory until it is touched, all of it zeros.
class Large {
 public:
  Large() : memory_(static_cast<char*>(mmap(nullptr, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
    if (memory_ == MAP_FAILED) std::perror("memory for large calls"), std::abort();
  }
  ~Large() { munmap(memory_, BYTES); }

  CallBuilder call;

  /// Row-major, unless strides are given.
  template <class T>
  Large& add(std::vector<int64_t> dims, std::vector<int64_t> strides = {}) {
    return add(dtype_of<T>(), std::move(dims), std::move(strides));
  }
  Large& add(DType dtype, std::vector<int64_t> dims, std::vector<int64_t> strides = {}) {
    Tensor t{memory_ + used_, dtype, int(dims.size()), {}, {}};
    int64_t size = 1, last = 0;
    for (int d = t.rank - 1; d >= 0; d--) {
      t.dims[d] = dims[size_t(d)], t.strides[d] = strides.empty() ? size : strides[size_t(d)];
      size *= t.dims[d], last += (t.dims[d] - 1) * t.strides[d];
    }
    return place(t, uint64_t(last + 1) * size_of(dtype));
  }
  Large& scratch(int64_t bytes) { return place(Tensor{memory_ + used_, DType::bytes, 1, {bytes}, {1}}, uint64_t(bytes)); }
  /// An output that lies where an input does.
  Large& in_place(int operand) {
    call.operands.push_back(call.operands[size_t(operand)]);
    return *this;
  }
  template <class T>
  Large& set(int operand, int64_t at, T value) {
    call.operands[size_t(operand)].as<T>()[at] = value;
    return *this;
  }

  void run_last_blocks(const char* name) {
    cuda::host::last_block_alone = true;
    call.run(kernel(name), 1);
    cuda::host::last_block_alone = false;
  }
  /// Runs the last block of each launch, and then all of the end alone: the same bits in `outputs`.
  void ends_alike(const char* name, const std::vector<Cut>& cuts, const std::vector<int>& outputs, const std::vector<Begin>& begins = {}) {
    CallBuilder small = call;
    for (const auto [operand, dim, keep, first] : cuts) {
      Tensor& t = small.operands[size_t(operand)];
      t.data = t.as<char>() + (first ? 0 : t.dims[dim] - keep) * t.strides[dim] * int64_t(size_of(t.dtype));
      t.dims[dim] = keep;
    }
    for (const auto [attribute, value] : begins) small.attributes[size_t(attribute)].i = value;
    for (const Cut& cut : cuts) fill(small.operands[size_t(cut.operand)], unsigned(cut.operand));
    std::vector<double> results[2];
    for (const bool is_small : {false, true}) {
      std::vector<std::vector<double>> before;  // an input may be among the outputs
      for (const int i : outputs) before.push_back(numbers(small.operands[size_t(i)]));
      if (is_small) small.run(kernel(name), 1);
      else run_last_blocks(name);
      for (size_t k = 0; k < outputs.size(); k++) {
        const Tensor& t = small.operands[size_t(outputs[k])];
        const auto result = numbers(t);
        results[is_small].insert(results[is_small].end(), result.begin(), result.end());
        EXPECT(result != before[k]);
        size_t n = 0;
        each(t, [&](int64_t at) { put(t, at, before[k][n++]); });
      }
    }
    if (results[0] == results[1]) return;
    std::printf("%s: the end of a large call is not that of a small one\n", name);
    failures++;
  }

 private:
  static constexpr uint64_t BYTES = uint64_t{1} << 41;
  char* const memory_;
  uint64_t used_ = 0;

  Large& place(const Tensor& t, uint64_t bytes) {
    call.operands.push_back(t);
    used_ += (bytes + 8191) / 4096 * 4096;  // what is written behind its end is not another operand
    if (used_ > BYTES) std::fprintf(stderr, "there are %llu bytes of operands\n", static_cast<unsigned long long>(used_)), std::abort();
    return *this;
  }
  template <class F>
  static void each(const Tensor& t, F f) {
    int64_t total = 1;
    for (int d = 0; d < t.rank; d++) total *= t.dims[d];
    for (int64_t i = 0; i < total; i++) {
      int64_t at = 0, rest = i;
      for (int d = t.rank - 1; d >= 0; d--) at += rest % t.dims[d] * t.strides[d], rest /= t.dims[d];
      f(at);
    }
  }
  static double get(const Tensor& t, int64_t at) { return t.dtype == DType::i32 ? t.as<int32_t>()[at] : t.dtype == DType::bf16 ? double(t.as<bf16>()[at]) : double(t.as<float>()[at]); }
  static void put(const Tensor& t, int64_t at, double value) {
    if (t.dtype == DType::i32) t.as<int32_t>()[at] = int32_t(value);
    else if (t.dtype == DType::bf16) t.as<bf16>()[at] = bf16(float(value));
    else t.as<float>()[at] = float(value);
  }
  static std::vector<double> numbers(const Tensor& t) {
    std::vector<double> all;
    each(t, [&](int64_t at) { all.push_back(get(t, at)); });
    return all;
  }
  static void fill(const Tensor& t, unsigned seed) {
    std::mt19937 engine(seed);
    std::normal_distribution<double> normal;
    if (t.dtype != DType::i32) each(t, [&](int64_t at) { put(t, at, std::fabs(normal(engine))); });
  }
};

// Llama 3 405B: rows of 16,384, feed-forward layers of 53,248, 128 heads of 128; its vocabulary, and its longest sequence, 16 at once.
constexpr int64_t D = 16384, F = 53248, HEADS = 128, HEAD = 128, V = 128256, T = 131072, N = 16 * T;

void copies() {
  // A grid has at most 2^20 blocks: what they take at once divides the sizes, so that the last block has the last elements.
  Large().add<float>({int64_t{1} << 32}).add<float>({int64_t{1} << 32}).ends_alike("copy", {{0, 0, 64}, {1, 0, 64}}, {1});
  Large().add<bf16>({16, 65536, D}).add<bf16>({16, 65536, D}, {65536 * D, 1, 65536}).ends_alike("copy", {{0, 0, 1}, {0, 1, 32}, {0, 2, 32}, {1, 0, 1}, {1, 1, 32}, {1, 2, 32}}, {1});
  // Along an inner dim of more than 2^32 elements, also where a place is less.
  constexpr int64_t LONG = (int64_t{1} << 32) + (int64_t{1} << 28);
  for (const int64_t at : {(int64_t{1} << 29) - 1, (int64_t{1} << 32) - 1}) {
    Large rows;
    rows.add<bf16>({2, LONG}, {LONG + 8, 1}).add<bf16>({2, LONG}).set(0, at, bf16(3.f)).run_last_blocks("copy");
    EXPECT(rows.call.operands[1].as<bf16>()[at] == 3);
  }
  Large large;
  large.add<bf16>({int64_t{1} << 33}).add<float>({int64_t{1} << 33}).call.integer(1);
  large.ends_alike("accumulate", {{0, 0, 64}, {1, 0, 64}}, {1});
}

void rows() {
  {
    Large large;
    large.add<float>({N, D}).add<float>({D}).add<float>({N, D}).add<float>({N}).call.real(1e-5);
    for (int64_t d = 0; d < D; d++) large.set(1, d, 0.5f);
    large.ends_alike("rmsnorm", {{0, 0, 1}, {2, 0, 1}, {3, 0, 1}}, {2, 3});
  }
  {
    Large large;
    large.add<bf16>({N, D}).add<bf16>({N, D}).add<float>({D}).in_place(0).add<bf16>({N, D}).add<float>({N}).call.real(1e-5);
    for (int64_t d = 0; d < D; d++) large.set(2, d, 0.5f);
    large.ends_alike("add_rmsnorm", {{0, 0, 1}, {1, 0, 1}, {3, 0, 1}, {4, 0, 1}, {5, 0, 1}}, {3, 4, 5});
  }
  for (const bool in_memory : {false, true}) {  // sums of dw: in shared memory, or, where rows are too long for it, in scratch
    constexpr int64_t ROWS = 512;
    const int64_t row = in_memory ? 2 * D : D;
    Large large;
    large.add<float>({ROWS, row}, {int64_t{1} << 24, 1}).add<float>({ROWS}).add<float>({row}).add<float>({ROWS, row}, {int64_t{1} << 24, 1}).call.absent();
    large.add<float>({ROWS, row}, {int64_t{1} << 24, 1}).add<float>({row}).scratch(ROWS * row * 4).call.integer(0);
    // Of the last row alone: dw comes from all blocks.
    large.ends_alike("rmsnorm_backward", {{0, 0, 1}, {1, 0, 1}, {2, 0, row}, {3, 0, 1}, {5, 0, 1}}, {5});
  }
  {
    Large large;
    large.add<float>({2 * T, HEADS, HEAD}).add<float>({2 * T, HEAD}).add<float>({2 * T, HEADS, HEAD}).call.integer(0);
    large.ends_alike("rope", {{0, 0, 1}, {0, 1, 1}, {1, 0, 1}, {2, 0, 1}, {2, 1, 1}}, {2});
  }
  Large().add<float>({N, D}).add<float>({N, D}).ends_alike("softmax", {{0, 0, 1}, {1, 0, 1}}, {1});
  Large().add<float>({N, 2048}).add<float>({N, 8}).add<int32_t>({N, 8}).ends_alike("top_k", {{0, 0, 1}, {1, 0, 1}, {2, 0, 1}}, {1, 2});
}

void reductions() {
  const auto call = [](std::vector<int64_t> dims, std::vector<int64_t> x, std::vector<int64_t> y, int64_t kind, const std::vector<Cut>& cuts) {
    Large large;
    large.add<float>(dims, x).add<float>(dims, y).scratch(8 << 15).call.integer(kind);
    large.ends_alike("reduce", cuts, {1});
  };
  call({N, D}, {D, 1}, {1, 0}, 0, {{0, 0, 1}, {1, 0, 1}});
  call({N, 512, 32}, {D, 32, 1}, {512, 1, 0}, 0, {{0, 0, 1}, {0, 1, 32}, {1, 0, 1}, {1, 1, 32}});
  call({64, D}, {int64_t{1} << 28, 1}, {0, 1}, 0, {{0, 1, 32}, {1, 1, 32}});
  // To one number, of which the last of many blocks makes a part.
  call({1024, D}, {int64_t{1} << 28, 1}, {0, 0}, 2, {{0, 0, 1}, {1, 0, 1}});
  {
    Large large;
    large.add<float>({int64_t{1} << 31}).add<float>({F, D}).add<bf16>({V, D}).add<float>({}).scratch(((int64_t{1} << 31) + F * D + V * D) / 4096 * 8);
    large.ends_alike("sum_squares", {{0, 0, 0}, {1, 0, 0}, {2, 0, 1}, {2, 1, 4096}}, {3});
  }
  {
    constexpr int64_t LINES = int64_t{1} << 26;
    Large large;
    large.add<int32_t>({64, LINES}).add<int32_t>({64, LINES}).call.integer(0).integer(0).integer(0);
    for (int64_t n = 0; n < 64; n++) large.set(0, (n + 1) * LINES - 1, int32_t(n));
    large.run_last_blocks("cumsum");
    for (int64_t n = 0; n < 64; n++) EXPECT(large.call.operands[1].as<int32_t>()[(n + 1) * LINES - 1] == n * (n + 1) / 2);
  }
}

void losses() {
  for (const char* name : {"cross_entropy", "cross_entropy_part", "cross_entropy_backward"}) {
    constexpr int64_t ROWS = T;  // as tokens of a sequence that nothing cuts
    Large large;
    large.add<float>({ROWS, V}).add<int32_t>({ROWS}).set(1, ROWS - 1, int32_t(V - 3));
    const std::string kernel = name;
    if (kernel == "cross_entropy") {
      large.add<float>({}).add<float>({}).add<float>({ROWS}).scratch(8 * ROWS).call.integer(-100);
      // Losses are summed by one block, over those in scratch of all rows.
      large.ends_alike(name, {{0, 0, 1}, {1, 0, 1}, {4, 0, 1}}, {2, 3, 4});
    } else if (kernel == "cross_entropy_part") {
      large.add<float>({ROWS}).add<float>({ROWS}).call.integer(-100).integer(0).integer(V);
      large.ends_alike(name, {{0, 0, 1}, {1, 0, 1}, {2, 0, 1}, {3, 0, 1}}, {2, 3});
    } else {
      large.add<float>({ROWS}).add<float>({}).in_place(0).set(3, 0, 2.f).call.integer(-100).integer(0);
      large.ends_alike(name, {{0, 0, 1}, {1, 0, 1}, {2, 0, 1}, {4, 0, 1}}, {4});
    }
  }
}

void tables() {
  constexpr int64_t COLUMNS = 2048;  // of a row, that a block of the gradient has
  {
    Large large;
    large.add<int32_t>({T}).add<float>({V, D}).add<float>({T, D}).set(0, T - 1, int32_t(V - 1)).call.integer(0).integer(V);
    large.ends_alike("embedding", {{0, 0, 1}, {1, 0, 1}, {2, 0, 1}}, {2}, {{0, V - 1}});
  }
  {
    Large large;
    large.add<int32_t>({8192}).add<float>({8192, D}).add<float>({V, D}).call.integer(1).integer(0);
    for (const int64_t n : {8189, 8191}) large.set(0, n, int32_t(V - 1));
    large.ends_alike("embedding_backward", {{0, 0, 4}, {1, 0, 4}, {1, 1, COLUMNS}, {2, 0, 16}, {2, 1, COLUMNS}}, {2}, {{1, V - 16}});
  }
  {
    Large large;
    large.add<float>({1, V, D}).add<int32_t>({1, T}).add<float>({1, T, D}).set(1, T - 1, int32_t(V - 1)).call.integer(0);
    large.ends_alike("take", {{0, 1, 1}, {1, 1, 1}, {2, 1, 1}}, {2}, {{0, V - 1}});
  }
  {
    Large large;
    large.add<int32_t>({1, 64}).add<float>({1, 64, D}, {0, int64_t{1} << 28, 1}).add<float>({1, T, D}).set(0, 63, int32_t(T - 1)).call.integer(0);
    large.ends_alike("scatter_add", {{0, 1, 1}, {1, 1, 1}, {1, 2, COLUMNS}, {2, 1, 1}, {2, 2, COLUMNS}}, {2}, {{0, T - 1}});
  }
  {
    Large large;
    large.add<bf16>({1, T, D}).add<int32_t>({1, 64}).add<bf16>({1, 64, D}, {0, int64_t{1} << 28, 1}).add<bf16>({1, T, D}).set(1, 63, int32_t(T - 1)).call.integer(0);
    large.ends_alike("put_rows", {{0, 1, 1}, {1, 1, 1}, {2, 1, 1}, {3, 1, 1}}, {3}, {{0, T - 1}});
  }
}

void parameters() {
  {
    Large large;
    for (int role = 0; role < 4; role++) large.add<float>({F, D}).add<float>({131072, D});
    large.add<float>({}).add<float>({}).add<float>({}).set(8, 0, 0.01f).set(9, 0, 3.f).set(10, 0, 1.f);
    for (int i = 0; i < 6; i++) large.in_place(i);
    large.call.integer(2).real(0.9).real(0.95).real(1e-8).real(0.1);
    std::vector<Cut> cuts;
    for (int i = 0; i < 17; i++)
      if (i < 8 || i > 10) cuts.push_back({i, 0, 1}), cuts.push_back({i, 1, 4096});
    large.ends_alike("adamw", cuts, {12, 14, 16});
  }
  {
    Large large;
    large.add<int32_t>({2}).add<float>({131072, D}).call.integer(0).integer(7).real(0).real(1).real(0).real(1);
    large.call.integer(2).integer(131072).integer(D).integer(2).integer(0).integer(0).integer(2).integer(131072).integer(D);
    large.ends_alike("random", {{1, 0, 1}, {1, 1, 256}}, {1}, {{10, 131071}, {11, D - 256}});
  }
}

void elementwise() {
  {
    // y = a + b, where b is a row of numbers for all rows.
    Large large;
    large.add<float>({D, 4 * T}).add<float>({D, 4 * T}, {0, 1}).add<float>({D, 4 * T}).call.integer(2).integer(3).integer(2);
    large.call.integer(int64_t{0} | int64_t{2} << 16 | int64_t{0} << 28 | int64_t{1} << 40).integer(2).integer(0);
    large.ends_alike("map", {{0, 0, 1}, {0, 1, 64}, {1, 0, 1}, {1, 1, 64}, {2, 0, 1}, {2, 1, 64}}, {2});
  }
  {
    Large large;
    large.add<float>({D, 2 * T}).add<int32_t>({D, 2 * T});
    large.ends_alike("integer_cast", {{0, 0, 1}, {0, 1, 64}, {1, 0, 1}, {1, 1, 64}}, {1});
  }
  {
    Large large;
    large.add<int32_t>({D, 2 * T}).call.integer(0).integer(7);
    large.ends_alike("integer_map", {{0, 0, 1}, {0, 1, 64}}, {0});
  }
  {
    Large large;
    large.add<int32_t>({16 * N}).add<float>({16 * N, HEAD}).set(0, 16 * N - 1, int32_t(T - 1)).call.real(500000).real(1).real(0).real(0).real(0);
    large.ends_alike("rope_table", {{0, 0, 1}, {1, 0, 1}, {1, 1, HEAD}}, {1});
  }
}

void products(DType dtype) {
  const bool rounds = dtype == DType::bf16;
  {
    Large large;
    large.add(dtype, {1, T, 48}).add(dtype, {1, 48, T}).add(dtype, {1, T, T}).call.integer(1).integer(rounds);
    large.ends_alike("gemm", {{0, 1, 64}, {1, 2, 64}, {2, 1, 64}, {2, 2, 64}}, {2});
  }
  // Of 16 sequences, as they lie in memory, there are few keys, and for the gradient few queries, as an emulator takes long. Every query sees every key.
  const std::vector<int64_t> queries = {T * HEADS * HEAD, HEADS * HEAD, HEAD, 1}, keys = {T * 8 * HEAD, 8 * HEAD, HEAD, 1};
  {
    const int64_t rows = rounds ? 128 : 32;  // of a block; on tensor cores the last one has the first queries, which see fewest keys
    Large large;
    large.add(dtype, {16, T, HEADS, HEAD}).add(dtype, {16, 32, 8, HEAD}, keys).add(dtype, {16, 32, 8, HEAD}, keys).call.absent().absent();
    large.add<int32_t>({16, T}).add<int32_t>({16, 32}).call.absent().absent().absent().absent();
    large.add(dtype, {16, T, HEADS, HEAD}).add<float>({16, HEADS, T}).scratch(1 << 24).call.real(0.1).integer(rounds);
    std::vector<Cut> cuts = {{5, 0, 1}, {5, 1, rows, rounds}, {6, 0, 1}, {12, 0, 1}, {12, 1, 1}, {12, 2, rows, rounds}};
    for (const int i : {0, 11}) cuts.push_back({i, 0, 1}), cuts.push_back({i, 1, rows, rounds}), cuts.push_back({i, 2, 1});
    for (const int i : {1, 2}) cuts.push_back({i, 0, 1}), cuts.push_back({i, 2, 1});
    large.ends_alike("attention", cuts, {11, 12});
  }
  {
    const int64_t rows = rounds ? 32 : 16;  // keys of the last block
    Large large;
    large.add(dtype, {16, 32, HEADS, HEAD}, queries).add(dtype, {16, 32, 8, HEAD}, keys).add(dtype, {16, 32, 8, HEAD}, keys).add(dtype, {16, 32, HEADS, HEAD}, queries).add<float>({16, HEADS, 32}, {HEADS * T, T, 1});
    large.add(dtype, {16, 32, HEADS, HEAD}, queries).call.absent().absent();
    large.add<int32_t>({16, 32}).add<int32_t>({16, 32}).call.absent().absent();
    large.add(dtype, {16, 32, HEADS, HEAD}, queries).add(dtype, {16, 32, 8, HEAD}, keys).add(dtype, {16, 32, 8, HEAD}, keys).scratch(1 << 24).call.real(0.1).integer(rounds);
    std::vector<Cut> cuts = {{4, 0, 1}, {4, 1, 16}, {8, 0, 1}, {9, 0, 1}, {9, 1, rows}};
    for (const int i : {0, 3, 5, 12}) cuts.push_back({i, 0, 1}), cuts.push_back({i, 2, 16});
    for (const int i : {1, 2, 13, 14}) cuts.push_back({i, 0, 1}), cuts.push_back({i, 1, rows}), cuts.push_back({i, 2, 1});
    large.ends_alike("attention_backward", cuts, {13, 14});
  }
}

int main() {
  copies();
  rows();
  reductions();
  losses();
  tables();
  parameters();
  elementwise();
  products(DType::f32);
  products(DType::bf16);
  return finish("cuda_large");
}
