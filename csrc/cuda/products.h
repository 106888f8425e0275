// Products by cuBLASLt: the plans of calls of `gemm`.
//
// A plan is made when a program is loaded: descriptors, and the one algorithm that cuBLASLt's heuristic puts first. It stays that one, so that two runs
// have the same bits (cuBLAS, "Results Reproducibility"). Where it cuts K into parts, their sums stand in the workspace in the type of sums, and a second
// pass adds them in order: CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, and no other scheme. Operands of bf16 and float8 are summed in f32, f64 is multiplied
// as f64, and f32 as f32 (CUBLAS_COMPUTE_32F), or rounded to TF32 where a call says so (its attribute `bf16` is 2: CUBLAS_COMPUTE_32F_FAST_TF32).
// Epilogues are those of `gemm`: it adds to its output, or does not (beta).
//
// What cuBLASLt does not take our kernel runs (ops/gemm.cu), by this rule, for each call when the program is loaded:
//   sums over nothing, and empty outputs
//   f32 operands that are to be rounded to bf16, and operands of two different types, but float8
//   float8 before sm_89, two f8e5m2, K not contiguous in both operands, and rows, strides and places at other than multiples of 16 bytes
//   what the heuristic has no algorithm for
// TITAN_CUDA_PRODUCTS says otherwise: `own` for our kernel alone, `cublaslt` to refuse what cuBLASLt does not take, with the reason.
#pragma once
#include <string>

#include "plan.h"
#include "resources.h"
#ifdef TITAN_PLAYED_RUNTIME
#include "host/cublaslt.h"
#else
#include <cublasLt.h>
#endif

namespace titan::cuda {

class Products {
 public:
  /// Bytes of the workspace: what NVIDIA recommends for sm_90 (cuBLAS, "cublasSetWorkspace()"). Products of one stream share it.
  static constexpr size_t WORKSPACE_BYTES = size_t{32} << 20;

  /// On the current GPU, of a capability such as 90 for sm_90.
  explicit Products(int capability);
  ~Products();
  Products(const Products&) = delete;

  /// Null where our kernel is the way. Throws a Failure where that is not allowed.
  std::unique_ptr<Plan> plan(const Call& call) const;
  /// Who multiplies: "cuBLASLt 13.0".
  static std::string name();

 private:
  const int capability_;
  cublasLtHandle_t handle_ = nullptr;
  DeviceMemory workspace_;
};

}  // namespace titan::cuda
