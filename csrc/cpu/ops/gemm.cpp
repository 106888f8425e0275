// gemm: c[B,M,N] = a[B,M,K] b[B,K,N], or added to c. Any strides with one unit stride among the last two dims of each operand; a and b may have a
// batch of 1. With bf16 = 1, a and b are rounded to bf16 and any operand may be stored so, a and b also as float8. Compute-bound; accuracy is stated in product.h.
#include <algorithm>
#include <climits>

#include "../blas.h"
#include "../check.h"
#include "../kernels.h"
#include "../parallel.h"
#include "../simd.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

struct Matrix {
  int64_t rows, columns, row_stride, column_stride;
  Matrix(int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride) : rows(rows), columns(columns), row_stride(row_stride), column_stride(column_stride) {}
  explicit Matrix(const Tensor& t) : rows(t.dims[1]), columns(t.dims[2]), row_stride(t.strides[1]), column_stride(t.strides[2]) {}
  /// Unit stride along a row, and rows apart (a dim of size 1 may have any stride).
  bool row_major() const { return (columns <= 1 || column_stride == 1) && (rows <= 1 || row_stride >= columns); }
  Matrix transposed() const { return {columns, rows, column_stride, row_stride}; }
  bool storable() const {
    return (row_major() || transposed().row_major()) && std::max(rows, columns) <= INT_MAX && (rows <= 1 || row_stride <= INT_MAX) &&
           (columns <= 1 || column_stride <= INT_MAX);
  }
};

Stored stored(const Tensor& t, const Matrix& matrix) { return {t.data, t.dtype, matrix.row_stride, matrix.column_stride}; }
int64_t batch_stride(const Tensor& t) { return t.dims[0] == 1 ? 0 : t.strides[0]; }
void advance(Stored& matrix, int64_t elements) { matrix.data = static_cast<char*>(matrix.data) + elements * int64_t(size_of(matrix.dtype)); }

/// Products up to this many multiplications go to one thread each when there are enough of them.
constexpr int64_t SMALL = int64_t{1} << 25;

}  // namespace

void run_gemm(const Call& call) {
  const Tensor *a = &call[0], *b = &call[1];
  const Tensor& c = call[2];
  Matrix left(*a), right(*b), out(c);
  if (!out.row_major()) {  // c^T = b^T a^T
    std::swap(a, b);
    left = Matrix(*a).transposed();
    right = Matrix(*b).transposed();
    out = out.transposed();
  }
  int64_t batch = c.dims[0];
  Product p{out.rows, out.columns, left.columns, stored(*a, left), stored(*b, right), stored(c, out), call.adds(call.attributes[0].i), call.attributes[1].i == 1};
  if (!batch || !p.M || !p.N) return;
  p.c.column = 1;
  const int64_t a_batch = batch_stride(*a), b_batch = batch_stride(*b), c_batch = batch_stride(c);
  if (!p.K) {
    for (int64_t i = 0; i < batch && !p.adds; i++, advance(p.c, c_batch)) {
      Stored row = p.c;
      for (int64_t m = 0; m < p.M; m++, advance(row, row.row)) std::memset(row.data, 0, size_t(p.N) * size_of(row.dtype));
    }
    return;
  }
  // One right side for all: the batch is more rows, where those follow each other.
  if (p.M == 1) p.a.row = a_batch, p.c.row = c_batch;  // of a single row they mean nothing
  if (batch > 1 && b_batch == 0 && a_batch == p.M * p.a.row && c_batch == p.M * p.c.row && Matrix(p.M * batch, p.K, p.a.row, p.a.column).storable() &&
      Matrix(p.M * batch, p.N, p.c.row, 1).row_major()) {
    p.M *= batch;
    batch = 1;
  }
  static const Multiplier multiplier = choose_multiplier(VECTOR_BYTES * 8);
  const bool by_blas = multiplier == Multiplier::blas && !p.bf16 && !is_of_few_rows(p);
  const auto multiply_one = [&](int64_t i) {
    Product one = p;
    advance(one.a, i * a_batch);
    advance(one.b, i * b_batch);
    advance(one.c, i * c_batch);
    if (by_blas) multiply_blas(one, call.threads);
    else multiply_own(one, call.threads);
  };
  if (call.threads > 1 && batch >= call.threads && p.M * p.N <= SMALL / p.K && (!by_blas || blas_nests())) {
    for_each(batch, call.threads, multiply_one);
  } else {
    for (int64_t i = 0; i < batch; i++) multiply_one(i);
  }
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
std::string check_gemm(const Call& call) {
  Check check(call, {"a", "b", "c"}, 2);
  if (check.ok())
    check.require(call.attributes[0].i >= 0 && call.attributes[0].i <= 2, "accumulate is " + std::to_string(call.attributes[0].i) + "; expected: 0, 1 or 2")
        .require(call.attributes[1].i >= 0 && call.attributes[1].i <= 2, "bf16 is " + std::to_string(call.attributes[1].i) + "; expected: 0, 1, or 2, by which a GPU may round to TF32");
  const int64_t M = check.dim(2, 1), N = check.dim(2, 2), K = check.dim(0, 2);
  if (check.ok() && call.attributes[1].i == 1) {
    check.real_or_bf16(2, DType::f32, {-1, M, N}).real_or_stored(0, DType::f32, {-1, M, K}).real_or_stored(1, DType::f32, {-1, K, N});
  } else {
    const DType real = check.real(2);
    check.operand(2, real, {-1, M, N}).operand(0, real, {-1, M, K}).operand(1, real, {-1, K, N});
  }
  check.writable(2);
  for (int i = 0; i < 2 && check.ok(); i++)
    check.require(call[i].dims[0] == 1 || call[i].dims[0] == call[2].dims[0],
                  std::string(i ? "b" : "a") + " has a batch of " + std::to_string(call[i].dims[0]) + "; expected: 1 or " + std::to_string(call[2].dims[0]));
  for (int i = 0; i < 3 && check.ok(); i++)
    check.require(Matrix(call[i]).storable(), std::string(1, "abc"[i]) + " has dims " + to_text(call[i].dims, 3) + " with strides " + to_text(call[i].strides, 3) +
                                                  "; expected: stride 1 along rows or columns, which do not overlap, and nothing over 2^31");
  return check.error();
}
}  // namespace titan::cpu
#endif
