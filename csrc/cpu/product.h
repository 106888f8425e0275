// Matrix products: c = a b, or c += a b. libtitan's own (product.cpp; few_rows.cpp), or for f32 and f64 that of a BLAS (blas.h).
#pragma once
#include "../backend.h"

namespace titan::cpu {

/// A matrix in memory: element (i, j) is i * row + j * column elements from data. One of the strides is 1, or belongs to a dim of size 1.
struct Stored {
  void* data;
  DType dtype;
  int64_t row, column;
};

/// c[M,N] = a[M,K] b[K,N], added to c if `adds`. M, N and K are at least 1, c.column is 1. All three have one real dtype; or, with `bf16`, each is
/// f32 or bf16 (a and b also float8), a and b are rounded to bf16, sums are f32, and a bf16 result is rounded once, after all of K and c itself have been added.
struct Product {
  int64_t M, N, K;
  Stored a, b, c;
  bool adds, bf16;
};

inline namespace TITAN_LEVEL {

/// On `threads` threads, inside a parallel region on the calling one; the result depends on shapes and strides but on no number of threads.
/// A thread's first call allocates 3 MB for packed blocks, which it keeps (4 MB under AMX); later ones allocate nothing. NaN and infinities follow IEEE.
///
/// |error| <= (K + 8) 2^-24 sum |a||b| in f32 (2^-53 in f64); with `bf16` the same for the rounded a and b, and 2^-8 |c| more where c is stored as
/// bf16. Under AVX512-BF16 and AMX, bf16 numbers and f32 sums below 2^-126 count as 0.
void multiply_own(const Product& product, int threads);
/// The same where there are few rows and the columns of b lie in one piece each: bound by reading b. No memory is allocated.
constexpr int FEW_ROWS = 8;
bool is_of_few_rows(const Product& product);
void multiply_few_rows(const Product& product, int threads);
/// The same for `bf16` products, where the processor has tiles (AMX).
void multiply_in_tiles(const Product& product, int threads);

}  // namespace TITAN_LEVEL
}  // namespace titan::cpu
