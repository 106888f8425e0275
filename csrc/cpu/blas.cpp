#include "blas.h"

#include <algorithm>
#include <cstdlib>

#include "../failure.h"
#include "parallel.h"

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
void openblas_set_num_threads(int threads);
#endif
}
constexpr bool HAS_BLAS = true;
constexpr int ROW_MAJOR = 101, AS_IS = 111, TRANSPOSED = 112;

/// How CBLAS is told of a matrix [rows, columns].
struct Told {
  int trans, leading;
  Told(int64_t rows, int64_t columns, const Stored& matrix) {
    const bool as_is = (columns == 1 || matrix.column == 1) && (rows == 1 || matrix.row >= columns);
    trans = as_is ? AS_IS : TRANSPOSED;
    // The leading dimension of a single row (or column) is never followed, but has to be valid.
    leading = static_cast<int>(as_is ? (rows == 1 ? columns : matrix.row) : (columns == 1 ? rows : matrix.column));
  }
};

template <class real, class Gemm> void call_cblas(const Product& p, Gemm gemm) {
  const Told a(p.M, p.K, p.a), b(p.K, p.N, p.b), c(p.M, p.N, p.c);
  gemm(ROW_MAJOR, a.trans, b.trans, static_cast<int>(p.M), static_cast<int>(p.N), static_cast<int>(p.K), real{1}, static_cast<const real*>(p.a.data), a.leading,
       static_cast<const real*>(p.b.data), b.leading, real(p.adds), static_cast<real*>(p.c.data), c.leading);
}
}  // namespace

void multiply_blas(const Product& product, [[maybe_unused]] int threads) {
#if defined(_OPENMP)
  if (!omp_in_parallel()) omp_set_num_threads(threads);
#elif defined(TITAN_OPENBLAS)
  openblas_set_num_threads(threads);
#endif
  if (product.c.dtype == DType::f64) call_cblas<double>(product, cblas_dgemm);
  else call_cblas<float>(product, cblas_sgemm);
}

#ifdef TITAN_OPENBLAS
bool blas_nests() {
#ifdef _OPENMP
  return openblas_get_parallel() != 1;
#else
  return openblas_get_parallel() == 0;  // OpenMP's threads know nothing of ours
#endif
}
namespace {
std::string blas_name() {
  const char* const threading[] = {" (sequential)", " (own threads)", " (OpenMP)"};
  return std::string(openblas_get_config()) + threading[std::clamp(openblas_get_parallel(), 0, 2)];
}
}  // namespace
#else
bool blas_nests() { return false; }  // unknown: one call at a time
namespace {
std::string blas_name() { return TITAN_CBLAS; }
}  // namespace
#endif

#else

namespace {
constexpr bool HAS_BLAS = false;
std::string blas_name() { return ""; }
}  // namespace
void multiply_blas(const Product&, int) { std::abort(); }
bool blas_nests() { return false; }

#endif

namespace {
/// From 256 bits on libtitan's own product was as fast as OpenBLAS 0.3.29 or faster, with 128 bits it has a third of its speed.
constexpr int OWN_VECTOR_BITS = 256;

std::string wanted_multiplier() {
  const char* wanted = std::getenv("TITAN_PRODUCT");
  return wanted ? wanted : "";
}
}  // namespace

Multiplier choose_multiplier(int vector_bits) {
  const std::string wanted = wanted_multiplier();
  if (wanted.empty()) return HAS_BLAS && vector_bits < OWN_VECTOR_BITS ? Multiplier::blas : Multiplier::own;
  if (wanted == "own") return Multiplier::own;
  if (wanted != "blas") throw Failure(TITAN_STATUS_INVALID_ARGUMENT, text("TITAN_PRODUCT is ", wanted, "; expected: own or blas; fix: set it to one of these, or unset it to get the faster one"));
  if (!HAS_BLAS)
    throw Failure(TITAN_STATUS_INVALID_ARGUMENT, "TITAN_PRODUCT is blas, but no BLAS was found when libtitan was built; expected: own; fix: unset it, or install OpenBLAS and build again");
  return Multiplier::blas;
}

std::string multiplier_text(int vector_bits) {
  const bool own = choose_multiplier(vector_bits) == Multiplier::own;
  std::string name = own ? "own matrix product" : blas_name();
  if (!wanted_multiplier().empty()) return name + ", forced by TITAN_PRODUCT";
  return own && vector_bits < OWN_VECTOR_BITS ? name + " (no BLAS, which is faster at this level, was found when libtitan was built)" : name;
}

}  // namespace titan::cpu
