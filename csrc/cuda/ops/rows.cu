// Rows by index in B independent parts: take, scatter_add and put_rows (csrc/cpu/ops/rows.cpp). An index that is no row gives zeros or is left out.
// Memory-bound: a row is read once and written once. Where rows are put or added, a block for each row of y looks through the indices for its own
// (from L2), so that they count in their order, and no two blocks write one element.
#include "../device.h"
#include "../kernels.h"
#include "../matches.h"

namespace titan::cuda {
namespace {

/// The rows of an operand [B,rows,D], in words of any size: of an element, or of several.
template <class Word>
struct Rows {
  Word* data;
  int64_t batch, row, D;
  Rows(const Tensor& t) : data(t.as<Word>()), batch(words(t, t.strides[0])), row(words(t, t.strides[1])), D(words(t, t.dims[2])) {}
  static int64_t words(const Tensor& t, int64_t elements) { return elements * int64_t(size_of(t.dtype)) / int64_t(sizeof(Word)); }
  __device__ Word* at(int64_t b, int64_t n) const { return data + b * batch + n * row; }
};
struct Ids {
  const int32_t* data;
  int64_t batch, stride, start;
  Ids(const Tensor& t, int64_t start) : data(t.as<int32_t>()), batch(t.strides[0]), stride(t.strides[1]), start(start) {}
  __device__ int64_t at(int64_t b, int64_t k) const { return data[b * batch + k * stride] - start; }
};

template <class Word>
__global__ void take(Rows<Word> x, Ids ids, Rows<Word> y, int64_t B, int64_t N, int64_t K) {
  for (int64_t i = blockIdx.x; i < B * K; i += gridDim.x) {
    const int64_t b = i / K, k = i % K, n = ids.at(b, k);
    const bool is_row = n >= 0 && n < N;
    const Word* const from = x.at(b, is_row ? n : 0);
    Word* const to = y.at(b, k);
    for (int64_t d = threadIdx.x; d < y.D; d += blockDim.x) to[d] = is_row ? from[d] : Word{};
  }
}

template <class Word>
__global__ void put_rows(Rows<Word> x, Ids ids, Rows<Word> rows, Rows<Word> y, int64_t B, int64_t N, int64_t K, bool in_place) {
  for (int64_t i = blockIdx.x; i < B * N; i += gridDim.x) {
    const int64_t b = i / N, n = i % N;
    int64_t last = -1;
    for_each_match(K, [&](int64_t k) { return ids.at(b, k) == n; }, [&](int64_t k) { last = k; });
    if (last < 0 && in_place) continue;
    const Word* const from = last < 0 ? x.at(b, n) : rows.at(b, last);
    Word* const to = y.at(b, n);
    for (int64_t d = threadIdx.x; d < y.D; d += blockDim.x) to[d] = from[d];
  }
}

template <class real>
__global__ void scatter_add(Ids ids, Rows<real> rows, Rows<real> y, int64_t B, int64_t N, int64_t K, int64_t D) {
  constexpr DType dtype = sizeof(real) == 4 ? DType::f32 : DType::f64;
  for (int64_t i = blockIdx.x; i < B * N; i += gridDim.x) {
    const int64_t b = i / N, n = i % N;
    RowSum<real> sum(Elements<real>(y.at(b, n), dtype), int64_t{blockIdx.y} * MATCH_COLUMNS, D, false);
    for_each_match(K, [&](int64_t k) { return ids.at(b, k) == n; }, [&](int64_t k) { sum.add(Elements<real>(rows.at(b, k), dtype)); });
    sum.store();
  }
}

/// Rows are moved by 16 bytes where all consist of such words, else as elements, whatever they mean.
template <class F>
void with_word(std::initializer_list<const Tensor*> operands, F f) {
  const auto size = size_of((*operands.begin())->dtype);
  uint64_t together = 0;
  for (const Tensor* t : operands) together |= reinterpret_cast<uintptr_t>(t->data) | uint64_t(t->strides[0] | t->strides[1] | t->dims[2]) * size;
  if (together % WORD == 0) return f(Pack<uint32_t, 4>{});
  switch (size) {
    case 2: return f(uint16_t{});
    case 4: return f(uint32_t{});
    default: return f(uint64_t{});
  }
}

}  // namespace

void run_take(const Call& call) {
  const Tensor &x = call[0], &y = call[2];
  with_word({&x, &y}, [&](auto word) {
    using Word = decltype(word);
    launch(take<Word>, {blocks_for(y.dims[0] * y.dims[1], 1), threads_for(y.dims[2])}, call, Rows<Word>(x), Ids(call[1], call.attributes[0].i), Rows<Word>(y), y.dims[0], x.dims[1], y.dims[1]);
  });
}
void run_put_rows(const Call& call) {
  const Tensor &x = call[0], &rows = call[2], &y = call[3];
  with_word({&x, &rows, &y}, [&](auto word) {
    using Word = decltype(word);
    launch(put_rows<Word>, {blocks_for(y.dims[0] * y.dims[1], 1), MATCH_THREADS}, call, Rows<Word>(x), Ids(call[1], call.attributes[0].i), Rows<Word>(rows), Rows<Word>(y), y.dims[0], y.dims[1], rows.dims[1],
           x.data == y.data);
  });
}
void run_scatter_add(const Call& call) {
  const Tensor &rows = call[1], &y = call[2];
  with_real(y, [&](auto zero) {
    using real = decltype(zero);
    launch(scatter_add<real>, {dim3(blocks_for(y.dims[0] * y.dims[1], 1), blocks_for(y.dims[2], MATCH_COLUMNS)), MATCH_THREADS}, call, Ids(call[0], call.attributes[0].i), Rows<real>(rows), Rows<real>(y),
           y.dims[0], y.dims[1], rows.dims[1], y.dims[2]);
  });
}

}  // namespace titan::cuda
