// Matrix products: by the platform's CBLAS where the build found one, else (and in tests) by our own.
#pragma once
#include <cstdint>

namespace titan::cpu {

/// c[m,n] = sum over k of a[m,k] b[k,n], added to c if `adds`. Strides are elements; c's columns are next to each other.
template <class real> struct Product {
  int64_t M, N, K;
  const real *a, *b;
  real* c;
  int64_t a_m, a_k, b_k, b_n, c_m;
  bool adds;
};

/// May our BLAS (or our own product) be called from inside a parallel region, where it runs on the calling thread alone?
bool blas_nests();
bool blas_is_builtin();
/// Library and version as text.
const char* blas_name();

/// On `threads` threads; inside a parallel region on the calling one. M, N and K are at least 1.
/// With a CBLAS, a has stride 1 or at least K (or M, transposed) as leading dimension, likewise b and c: gemm's check sees to it.
#ifdef TITAN_CBLAS
void multiply(const Product<float>& product, int threads);
void multiply(const Product<double>& product, int threads);
#endif

inline namespace TITAN_LEVEL {

/// The built-in product: any strides; two calls of the same shape on as many threads give the same bits.
template <class real> void multiply_builtin(const Product<real>& product, int threads);

#ifndef TITAN_CBLAS
template <class real> void multiply(const Product<real>& product, int threads) { multiply_builtin(product, threads); }
#endif

}  // namespace TITAN_LEVEL
}  // namespace titan::cpu
