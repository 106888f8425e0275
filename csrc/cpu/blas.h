// Matrix products of a BLAS through the plain CBLAS interface, where the build found one, and who multiplies.
#pragma once
#include <string>

#include "product.h"

namespace titan::cpu {

/// Who does the products of f32 and f64; those of bf16 and those of few rows are always libtitan's own.
enum class Multiplier { own, blas };

/// The one that the environment variable TITAN_PRODUCT names (own or blas), else the faster one: own with vectors of at least 256 bits, or
/// where there is no BLAS. Throws a Failure where TITAN_PRODUCT is something else, or a BLAS that the build did not find.
Multiplier choose_multiplier(int vector_bits);
/// The same for people, with the BLAS' version and what is unusual.
std::string multiplier_text(int vector_bits);

/// May BLAS be called from inside a parallel region, where it runs on the calling thread alone?
bool blas_nests();

/// Of f32 or f64, on `threads` threads, inside a parallel region on the calling one. Strides of a, b and c are 1 and at least the length of what
/// it jumps over: gemm's check sees to it. Only where choose_multiplier gives blas.
void multiply_blas(const Product& product, int threads);

}  // namespace titan::cpu
