// copy: y = x, of one dtype. accumulate: y = x or y += x, by the run flag FIRST; x and y may each be bf16. Strided, any rank, x may repeat
// elements by strides of 0; memory-bound.
// Dims are ordered by y's strides and joined where both sides allow it; then blocks of a row, or of a row and the dim along which x is
// contiguous (a transposition), are dealt to the threads.
#include <algorithm>
#include <cstring>

#include "../kernels.h"
#include "../parallel.h"
#include "../storage.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

struct Dim {
  int64_t size, x, y;  // strides
};

/// Dims outermost first: the last is the one along which y moves least.
struct Loops {
  int rank = 0;
  Dim dims[MAX_RANK + 1];

  Loops(const Tensor& x, const Tensor& y) {
    for (int d = 0; d < y.rank; d++) {
      if (y.dims[d] == 1) continue;
      int at = rank++;  // sorted in as it comes: std::stable_sort would allocate
      for (; at > 0 && dims[at - 1].y < y.strides[d]; at--) dims[at] = dims[at - 1];
      dims[at] = {y.dims[d], x.strides[d], y.strides[d]};
    }
    int kept = 0;
    for (int d = 0; d < rank; d++) {
      Dim* last = kept ? &dims[kept - 1] : nullptr;
      if (last && last->x == dims[d].x * dims[d].size && last->y == dims[d].y * dims[d].size) *last = {last->size * dims[d].size, dims[d].x, dims[d].y};
      else dims[kept++] = dims[d];
    }
    rank = kept;
    if (!rank) dims[rank++] = {1, 1, 1};
  }
};

constexpr int64_t ROW_BLOCK = 8192, SQUARE = 32;

/// Calls block(x offset, y offset, column dim, row dim) for all blocks, from `threads` threads; each element of y is in one block.
template <class Block> void for_each_block(const Tensor& x, const Tensor& y, int threads, Block block) {
  const Loops loops(x, y);
  for (int d = 0; d < loops.rank; d++)
    if (!loops.dims[d].size) return;
  const Dim row = loops.dims[loops.rank - 1];
  int across = -1;  // the dim along which x is contiguous, when that is not the row
  for (int d = 0; d + 1 < loops.rank && row.x != 1; d++)
    if (loops.dims[d].x == 1) across = d;
  int64_t steps[MAX_RANK + 1], blocks = 1;
  for (int d = 0; d < loops.rank; d++) {
    steps[d] = d == across ? SQUARE : d + 1 < loops.rank ? 1 : across >= 0 ? SQUARE : ROW_BLOCK;
    blocks *= (loops.dims[d].size + steps[d] - 1) / steps[d];
  }
  const auto run_block = [&](int64_t i) {
    int64_t x_offset = 0, y_offset = 0, rest = i;
    Dim column{1, 0, 0}, part = row;
    for (int d = loops.rank - 1; d >= 0; d--) {
      const Dim& dim = loops.dims[d];
      const int64_t count = (dim.size + steps[d] - 1) / steps[d], start = rest % count * steps[d];
      rest /= count;
      x_offset += start * dim.x;
      y_offset += start * dim.y;
      if (d == across) column = {std::min(steps[d], dim.size - start), dim.x, dim.y};
      if (d == loops.rank - 1) part.size = std::min(steps[d], dim.size - start);
    }
    block(x_offset, y_offset, column, part);
  };
  if (blocks == 1) return run_block(0);  // not by an if clause: OpenMP would allocate a team of one
  for_each(blocks, threads, run_block);
}

template <class Element> void copy(const Tensor& x, const Tensor& y, int threads) {
  for_each_block(x, y, threads, [&](int64_t x_offset, int64_t y_offset, Dim column, Dim row) {
    for (int64_t j = 0; j < column.size; j++) {
      const Element* from = x.as<Element>() + x_offset + j * column.x;
      Element* to = y.as<Element>() + y_offset + j * column.y;
      if (row.x == 1 && row.y == 1) std::memmove(to, from, static_cast<size_t>(row.size) * sizeof(Element));
      else if (row.y == 1) for (int64_t i = 0; i < row.size; i++) to[i] = from[i * row.x];
      else for (int64_t i = 0; i < row.size; i++) to[i * row.y] = from[i * row.x];
    }
  });
}

/// y = x, or y += x where `adds`.
template <class X, class Y> void accumulate(const Tensor& x, const Tensor& y, bool adds, int threads) {
  using real = computed<X>;
  for_each_block(x, y, threads, [&](int64_t x_offset, int64_t y_offset, Dim column, Dim row) {
    for (int64_t j = 0; j < column.size; j++) {
      const X* from = x.as<X>() + x_offset + j * column.x;
      Y* to = y.as<Y>() + y_offset + j * column.y;
      if (row.x != 1 || row.y != 1) for (int64_t i = 0; i < row.size; i++) to[i * row.y] = Y(adds ? real(to[i * row.y]) + real(from[i * row.x]) : real(from[i * row.x]));
      else if (adds) for_lanes<real>(row.size, [&](int64_t i, int64_t lanes) { store(to + i, load(to + i, lanes) + load(from + i, lanes), lanes); });
      else for_lanes<real>(row.size, [&](int64_t i, int64_t lanes) { store(to + i, load(from + i, lanes), lanes); });
    }
  });
}

// Elements are moved as words of their size, whatever they mean.
typedef uint8_t word8 __attribute__((may_alias));
typedef uint16_t word16 __attribute__((may_alias));
typedef uint32_t word32 __attribute__((may_alias));
typedef uint64_t word64 __attribute__((may_alias));

void copy_any(const Call& call) {
  const size_t size = size_of(call[1].dtype);
  if (size == 8) copy<word64>(call[0], call[1], call.threads);
  else if (size == 1) copy<word8>(call[0], call[1], call.threads);
  else if (size == 2) copy<word16>(call[0], call[1], call.threads);
  else copy<word32>(call[0], call[1], call.threads);
}

}  // namespace

void run_copy(const Call& call) { copy_any(call); }

void run_accumulate(const Call& call) {
  const Tensor &x = call[0], &y = call[1];
  const bool adds = call.adds(call.attributes[0].i);
  if (!adds && x.dtype == y.dtype) return copy_any(call);
  with_stored(x, y, [&](auto from, auto to) { accumulate<decltype(from), decltype(to)>(x, y, adds, call.threads); });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
namespace {
std::string check_pair(Check& check, const Call& call) {
  if (!check.ok()) return check.error();
  const Tensor &x = call[0], &y = call[1];
  check.require(x.rank == y.rank && std::equal(x.dims, x.dims + x.rank, y.dims),
                "x has dims " + to_text(x.dims, x.rank) + " and y " + to_text(y.dims, y.rank) + "; expected: the same");
  return check.writable(1).error();
}
}  // namespace

std::string check_copy(const Call& call) {
  Check check(call, {"x", "y"}, 0);
  if (check.ok()) check.require(call[0].dtype == call[1].dtype, std::string("x is ") + name_of(call[0].dtype) + " and y " + name_of(call[1].dtype) + "; expected: the same dtype");
  return check_pair(check, call);
}

std::string check_accumulate(const Call& call) {
  Check check(call, {"x", "y"}, 1);
  const DType real = check.real_or_bf16(1);
  if (check.ok()) check.require(widened(call[0].dtype) == real, std::string("x is ") + name_of(call[0].dtype) + " and y " + name_of(call[1].dtype) + "; expected: the same dtype, or f32 and bf16").in_place(0, 1);
  if (check.ok()) check.require(call.attributes[0].i >= 0 && call.attributes[0].i <= 2, "accumulate is " + std::to_string(call.attributes[0].i) + "; expected: 0, 1 or 2");
  return check_pair(check, call);
}
}  // namespace titan::cpu
#endif
