// Token embedding.   ids[N] i32, table[V,D] -> y[N,D]:  y[n] = table[ids[n] - start]    and    dy[N,D] -> dtable[V,D] (+)= sum over n with ids[n] - start = v of dy[n]
// The table is rows start to start + V of a larger one of `whole` rows: where an id belongs to another slice, y is 0, so that slices add up.
// Memory-bound: one row in, one row out. The gradient gives each thread a range of columns of every row, so that no two threads meet
// in one element, and each element sums its tokens in their order: the same bits for any number of threads. table, y, dy and dtable may each be
// bf16; sums are f32 all the same. For a bf16 dtable the tokens of an id are taken together, so that it is rounded once for up to 8192 tokens.
// An id outside 0..whole-1 reads nothing: its row of y is NaN (the loss shows it) and its row of dy is left out.
#include <algorithm>
#include <cstring>
#include <limits>

#include "../kernels.h"
#include "../parallel.h"
#include "../storage.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

template <class From, class To>
void embedding(const Call& call) {
  const Tensor &ids = call[0], &table = call[1], &y = call[2];
  const int64_t N = ids.dims[0], V = table.dims[0], D = table.dims[1], start = call.attributes[0].i, whole = call.attributes[1].i;
  for_each_of(N, D, call.threads, [&](int64_t n) {
    const int64_t id = ids.as<int32_t>()[n * ids.strides[0]], row = id - start;
    To* to = y.as<To>() + n * y.strides[0];
    if (row >= 0 && row < V) {
      const From* from = table.as<From>() + row * table.strides[0];
      if constexpr (std::is_same_v<From, To>) std::memcpy(to, from, size_t(D) * sizeof(To));
      else for_lanes<float>(D, [&](int64_t d, int64_t lanes) { store(to + d, load(from + d, lanes), lanes); });
    } else {
      std::fill_n(to, D, To(id >= 0 && id < whole ? 0.f : std::numeric_limits<float>::quiet_NaN()));
    }
  });
}

/// The rows of the table that the ids of a call mean, -1 for ids outside.
struct Ids {
  const Tensor& ids;
  int64_t V, start;
  int64_t operator[](int64_t n) const {
    const int64_t row = ids.as<int32_t>()[n * ids.strides[0]] - start;
    return row >= 0 && row < V ? row : -1;
  }
};

/// Tokens begin to begin + count by id: those of an id start at `first` of its slot in a hash table, and each leads to the next.
struct Chains {
  static constexpr int64_t MOST = 8192, SLOTS = 2 * MOST;
  static constexpr uint16_t NONE = 0xffff;
  uint16_t first[SLOTS], last[SLOTS], next[MOST];

  Chains(const Ids& ids, int64_t begin, int64_t count) {
    std::fill_n(first, SLOTS, NONE);
    for (int64_t n = 0; n < count; n++) {
      const int64_t id = ids[begin + n];
      if (id < 0) continue;
      uint32_t slot = uint32_t(id) * 2654435761u >> 18;  // of 2^14
      while (first[slot] != NONE && ids[begin + first[slot]] != id) slot = (slot + 1) % SLOTS;
      if (first[slot] == NONE) first[slot] = uint16_t(n);
      else next[last[slot]] = uint16_t(n);
      last[slot] = uint16_t(n);
      next[n] = NONE;
    }
  }
};

/// Adds the rows of dy to those of an f32 or f64 table, one after the other.
template <class From, class real>
void add_rows(const Ids& ids, const Tensor& dy, const Tensor& dtable, int64_t N, int64_t first, int64_t count, bool add) {
  real* column = dtable.as<real>() + first;
  if (!add)
    for (int64_t v = 0; v < ids.V; v++) std::fill_n(column + v * dtable.strides[0], count, real(0));
  for (int64_t n = 0; n < N; n++) {
    const int64_t id = ids[n];
    if (id < 0) continue;
    const From* from = dy.as<From>() + n * dy.strides[0] + first;
    real* to = column + id * dtable.strides[0];
    for_lanes<real>(count, [&](int64_t d, int64_t lanes) { store(to + d, load(to + d, lanes) + load(from + d, lanes), lanes); });
  }
}

/// The same for a bf16 table, each row summed in f32.
template <class From>
void add_rows_rounded(const Ids& ids, const Tensor& dy, const Tensor& dtable, int64_t N, int64_t first, int64_t count, bool add) {
  constexpr int64_t PIECE = 1024;
  float sums[PIECE];
  bf16* column = dtable.as<bf16>() + first;
  if (!add)
    for (int64_t v = 0; v < ids.V; v++) std::fill_n(column + v * dtable.strides[0], count, bf16(0));
  for (int64_t block = 0; block < N; block += Chains::MOST) {
    const Chains chains(ids, block, std::min(Chains::MOST, N - block));
    for (const uint16_t start : chains.first) {
      if (start == Chains::NONE) continue;
      for (int64_t piece = 0; piece < count; piece += PIECE) {
        const int64_t size = std::min(PIECE, count - piece);
        bf16* to = column + ids[block + start] * dtable.strides[0] + piece;
        for_lanes<float>(size, [&](int64_t d, int64_t lanes) { store(sums + d, load(to + d, lanes), lanes); });
        for (uint16_t n = start; n != Chains::NONE; n = chains.next[n]) {
          const From* from = dy.as<From>() + (block + n) * dy.strides[0] + first + piece;
          for_lanes<float>(size, [&](int64_t d, int64_t lanes) { store(sums + d, load(sums + d, lanes) + load(from + d, lanes), lanes); });
        }
        for_lanes<float>(size, [&](int64_t d, int64_t lanes) { store(to + d, load(sums + d, lanes), lanes); });
      }
    }
  }
}

template <class From, class To>
void embedding_backward(const Call& call) {
  const Tensor &dy = call[1], &dtable = call[2];
  const Ids ids{call[0], dtable.dims[0], call.attributes[1].i};
  const int64_t N = dy.dims[0], D = dtable.dims[1];
  constexpr int64_t LINE = 64 / sizeof(To);  // columns are handed out by cache lines
  const int64_t lines = (D + LINE - 1) / LINE;
  const bool add = call.adds(call.attributes[0].i);
  for_each(call.threads, call.threads, [&](int64_t part) {
    const int64_t first = lines * part / call.threads * LINE, count = std::min(D, lines * (part + 1) / call.threads * LINE) - first;
    if (count <= 0) return;
    if constexpr (std::is_same_v<To, bf16>) add_rows_rounded<From>(ids, dy, dtable, N, first, count, add);
    else add_rows<From, To>(ids, dy, dtable, N, first, count, add);
  });
}

}  // namespace

void run_embedding(const Call& call) {
  with_stored(call[1], call[2], [&](auto from, auto to) { embedding<decltype(from), decltype(to)>(call); });
}
void run_embedding_backward(const Call& call) {
  with_stored(call[1], call[2], [&](auto from, auto to) { embedding_backward<decltype(from), decltype(to)>(call); });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
std::string check_embedding(const Call& call) {
  Check check(call, {"ids", "table", "y"}, 2);
  if (!check.ok()) return check.error();
  const DType real = check.real_or_bf16(1);
  const int64_t N = check.dim(0, 0), V = check.dim(1, 0), D = check.dim(1, 1), start = call.attributes[0].i, whole = call.attributes[1].i;
  check.require(start >= 0 && start <= whole - V, "the slice is rows " + std::to_string(start) + " to " + std::to_string(start + V) + " of " + std::to_string(whole) + "; expected: rows of the whole table");
  return check.operand(0, DType::i32, {N}).real_or_bf16(1, real, {V, D}).real_or_bf16(2, real, {N, D}).rows(1).rows(2).writable(2).error();
}
std::string check_embedding_backward(const Call& call) {
  Check check(call, {"ids", "dy", "dtable"}, 2);
  const DType real = check.real_or_bf16(1);
  const int64_t N = check.dim(0, 0), D = check.dim(1, 1);
  return check.operand(0, DType::i32, {N}).real_or_bf16(1, real, {N, D}).real_or_bf16(2, real, {-1, D}).rows(1).rows(2).writable(2).error();
}
}  // namespace titan::cpu
#endif
