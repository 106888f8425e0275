// Rows by index, ids[B,K] i32, in B independent parts; x and y are rows start to start + N of larger ones.
//   take         x[B,N,D] -> y[B,K,D]:           y[b,k] = x[b, ids[b,k] - start]
//   scatter_add  rows[B,K,D] -> y[B,N,D]:        y[b,n] = sum over k with ids[b,k] - start = n of rows[b,k]
//   put_rows     x[B,N,D], rows[B,K,D] -> y[B,N,D]:  y = x but y[b, ids[b,k] - start] = rows[b,k]; of equal ids the last counts. y may be x, and
//                then only the rows that are put are touched
// An id outside of 0..N-1 is no row: take gives zeros, the others leave it out. So the slices of ranks add up, or each changes its own rows.
// Memory-bound. Each element is written by one thread, its rows in the order of k: the same bits for any number of threads.
#include <algorithm>
#include <cstring>

#include "../check.h"
#include "../kernels.h"
#include "../parallel.h"
#include "../simd.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

/// Where the rows of an operand [B,rows,D] lie, in bytes.
struct Rows {
  char* data;
  int64_t batch, row;
  explicit Rows(const Tensor& t) : data(t.as<char>()), batch(t.strides[0] * int64_t(size_of(t.dtype))), row(t.strides[1] * int64_t(size_of(t.dtype))) {}
  char* at(int64_t b, int64_t n) const { return data + b * batch + n * row; }
};

/// The row that an id means, -1 for none.
struct Ids {
  const Tensor& ids;
  int64_t start, N;
  int64_t at(int64_t b, int64_t k) const {
    const int64_t row = ids.as<int32_t>()[b * ids.strides[0] + k * ids.strides[1]] - start;
    return row >= 0 && row < N ? row : -1;
  }
};

/// Calls f(b, first byte, bytes) for ranges of the columns of each part, which are some rows, from the threads; together they are all of them.
template <class F>
void for_columns(int64_t parts, int64_t rows, int64_t row_bytes, int threads, F f) {
  constexpr int64_t LINE = 64;  // columns are handed out by cache lines
  const int64_t lines = (row_bytes + LINE - 1) / LINE, pieces = std::min(lines, (threads + parts - 1) / std::max<int64_t>(parts, 1));
  for_each_of(parts * pieces, rows * row_bytes / std::max<int64_t>(pieces, 1), threads, [&](int64_t task) {
    const int64_t piece = task % pieces, first = lines * piece / pieces * LINE;
    f(task / pieces, first, std::min(row_bytes, lines * (piece + 1) / pieces * LINE) - first);
  });
}

template <class real>
void scatter_add(const Call& call) {
  const Tensor &rows = call[1], &y = call[2];
  const Ids ids{call[0], call.attributes[0].i, y.dims[1]};
  const Rows from(rows), to(y);
  for_columns(y.dims[0], y.dims[1] + rows.dims[1], y.dims[2] * int64_t(sizeof(real)), call.threads, [&](int64_t b, int64_t first, int64_t bytes) {
    for (int64_t n = 0; n < y.dims[1]; n++) std::memset(to.at(b, n) + first, 0, size_t(bytes));
    for (int64_t k = 0; k < rows.dims[1]; k++) {
      const int64_t n = ids.at(b, k);
      if (n < 0) continue;
      const real* source = reinterpret_cast<const real*>(from.at(b, k) + first);
      real* sum = reinterpret_cast<real*>(to.at(b, n) + first);
      for_lanes<real>(bytes / int64_t(sizeof(real)), [&](int64_t d, int64_t lanes) { store(sum + d, load(sum + d, lanes) + load(source + d, lanes), lanes); });
    }
  });
}

}  // namespace

void run_take(const Call& call) {
  const Tensor &x = call[0], &y = call[2];
  const Ids ids{call[1], call.attributes[0].i, x.dims[1]};
  const Rows from(x), to(y);
  const int64_t K = y.dims[1];
  const size_t bytes = size_t(y.dims[2]) * size_of(y.dtype);
  for_each_of(y.dims[0] * K, int64_t(bytes), call.threads, [&](int64_t i) {
    const int64_t b = i / K, k = i % K, n = ids.at(b, k);
    if (n < 0) std::memset(to.at(b, k), 0, bytes);
    else std::memcpy(to.at(b, k), from.at(b, n), bytes);
  });
}

void run_scatter_add(const Call& call) {
  with_real(call[1].dtype, [&](auto zero) { scatter_add<decltype(zero)>(call); });
}

void run_put_rows(const Call& call) {
  const Tensor &x = call[0], &rows = call[2], &y = call[3];
  const Ids ids{call[1], call.attributes[0].i, y.dims[1]};
  const Rows old(x), from(rows), to(y);
  const bool in_place = x.data == y.data;
  for_columns(y.dims[0], rows.dims[1] + (in_place ? 0 : y.dims[1]), y.dims[2] * int64_t(size_of(y.dtype)), call.threads, [&](int64_t b, int64_t first, int64_t bytes) {
    for (int64_t n = 0; n < y.dims[1] && !in_place; n++) std::memcpy(to.at(b, n) + first, old.at(b, n) + first, size_t(bytes));
    for (int64_t k = 0; k < rows.dims[1]; k++)
      if (const int64_t n = ids.at(b, k); n >= 0) std::memcpy(to.at(b, n) + first, from.at(b, k) + first, size_t(bytes));
  });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
namespace {
/// Rows may be of any dtype that has elements, and begin anywhere.
Check& check_rows(Check& check, const Call& call, int rows) {
  if (!check.ok()) return check;
  const int64_t start = call.attributes[0].i;
  return check.require(call[rows].dtype != DType::bytes, "the rows are bytes; expected: elements").require(start >= 0, "start is " + std::to_string(start) + "; expected: 0 or more");
}
}  // namespace

std::string check_take(const Call& call) {
  Check check(call, {"x", "ids", "y"}, 1);
  if (!check_rows(check, call, 0).ok()) return check.error();
  const int64_t B = check.dim(0, 0), K = check.dim(1, 1), D = check.dim(0, 2);
  return check.operand(0, call[0].dtype, {B, -1, D}).operand(1, DType::i32, {B, K}).operand(2, call[0].dtype, {B, K, D}).rows(0).rows(2).writable(2).error();
}
std::string check_scatter_add(const Call& call) {
  Check check(call, {"ids", "rows", "y"}, 1);
  if (!check_rows(check, call, 1).ok()) return check.error();
  const DType real = check.real(1);
  const int64_t B = check.dim(1, 0), K = check.dim(1, 1), D = check.dim(1, 2);
  return check.operand(0, DType::i32, {B, K}).operand(1, real, {B, K, D}).operand(2, real, {B, -1, D}).rows(1).rows(2).writable(2).error();
}
std::string check_put_rows(const Call& call) {
  Check check(call, {"x", "ids", "rows", "y"}, 1);
  if (!check_rows(check, call, 0).ok()) return check.error();
  const int64_t B = check.dim(0, 0), N = check.dim(0, 1), K = check.dim(1, 1), D = check.dim(0, 2);
  check.operand(0, call[0].dtype, {B, N, D}).operand(1, DType::i32, {B, K}).operand(2, call[0].dtype, {B, K, D}).operand(3, call[0].dtype, {B, N, D});
  check.rows(0).rows(2).rows(3).writable(3);
  if (!check.ok() || call[0].data != call[3].data) return check.error();
  const bool same = (B == 1 || call[0].strides[0] == call[3].strides[0]) && (N == 1 || call[0].strides[1] == call[3].strides[1]);
  return check.require(same, "y begins where x does and has other strides; expected: the same, or a place of its own").error();
}
}  // namespace titan::cpu
#endif
