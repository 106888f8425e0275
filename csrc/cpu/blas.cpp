#include "blas.h"

#include <omp.h>

#include <algorithm>
#include <string>

namespace titan::cpu {

#ifdef TITAN_CBLAS

namespace {
// The part of CBLAS that is used here; its enumerations have the size of int in every implementation.
extern "C" {
void cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc);
void cblas_dgemm(int order, int trans_a, int trans_b, int m, int n, int k, double alpha, const double* a, int lda, const double* b, int ldb, double beta, double* c, int ldc);
#ifdef TITAN_OPENBLAS
char* openblas_get_config(void);
int openblas_get_parallel(void);  // 0 sequential, 1 its own threads, 2 OpenMP
#endif
}
constexpr int ROW_MAJOR = 101, AS_IS = 111, TRANSPOSED = 112;

/// How CBLAS is told of a matrix [rows, columns].
struct Stored {
  int trans, leading;
  Stored(int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride) {
    const bool as_is = (columns == 1 || column_stride == 1) && (rows == 1 || row_stride >= columns);
    trans = as_is ? AS_IS : TRANSPOSED;
    // The leading dimension of a single row (or column) is never followed, but has to be valid.
    leading = static_cast<int>(as_is ? (rows == 1 ? columns : row_stride) : (columns == 1 ? rows : column_stride));
  }
};

template <class real, class Gemm> void call_cblas(const Product<real>& p, int threads, Gemm gemm) {
  if (!omp_in_parallel()) omp_set_num_threads(threads);
  const Stored a(p.M, p.K, p.a_m, p.a_k), b(p.K, p.N, p.b_k, p.b_n), c(p.M, p.N, p.c_m, 1);
  gemm(ROW_MAJOR, a.trans, b.trans, static_cast<int>(p.M), static_cast<int>(p.N), static_cast<int>(p.K), real{1}, p.a, a.leading, p.b, b.leading, real(p.adds),
       p.c, c.leading);
}
}  // namespace

void multiply(const Product<float>& product, int threads) { call_cblas(product, threads, cblas_sgemm); }
void multiply(const Product<double>& product, int threads) { call_cblas(product, threads, cblas_dgemm); }
bool blas_is_builtin() { return false; }

#ifdef TITAN_OPENBLAS
bool blas_nests() { return openblas_get_parallel() != 1; }
const char* blas_name() {
  static const std::string name = [] {
    const char* const threading[] = {" (sequential)", " (own threads)", " (OpenMP)"};
    return std::string(openblas_get_config()) + threading[std::clamp(openblas_get_parallel(), 0, 2)];
  }();
  return name.c_str();
}
#else
bool blas_nests() { return false; }  // unknown: one call at a time
const char* blas_name() { return TITAN_CBLAS; }
#endif

#else

bool blas_is_builtin() { return true; }
bool blas_nests() { return true; }
const char* blas_name() { return "built-in product (no BLAS was found at configure time)"; }

#endif

}  // namespace titan::cpu
