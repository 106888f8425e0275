#include "products.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace titan::cuda {
namespace {

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Failure(status == CUBLAS_STATUS_ALLOC_FAILED ? TITAN_STATUS_OUT_OF_MEMORY : TITAN_STATUS_INTERNAL, text("the GPU failed in ", what, ": ", cublasLtGetStatusString(status), " (", cublasLtGetStatusName(status), ")"));
}
#define TITAN_CUBLASLT_CHECK(call) check(call, #call)

using Description = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

/// One operand of a product, seen as a batch of matrices.
struct Matrix {
  int operand;
  DType dtype;
  int64_t rows, columns, row_stride, column_stride, batch_stride;
  const void* data;

  Matrix(const Call& call, int operand) : operand(operand), dtype(call[operand].dtype), data(call[operand].data) {
    const Tensor& t = call[operand];
    rows = t.dims[1], columns = t.dims[2], row_stride = t.strides[1], column_stride = t.strides[2];
    batch_stride = t.dims[0] == 1 ? 0 : t.strides[0];
  }
  Matrix transposed() const {
    Matrix other = *this;
    std::swap(other.rows, other.columns);
    std::swap(other.row_stride, other.column_stride);
    return other;
  }
  /// cuBLASLt's order: a column is contiguous, and columns do not overlap. A dim of size 1 may have any stride.
  bool by_columns() const { return (rows <= 1 || row_stride == 1) && (columns <= 1 || column_stride >= rows); }
  int64_t leading_dimension() const { return columns <= 1 ? rows : column_stride; }
  uint32_t alignment() const {
    uint32_t alignment = 64;  // that of slots: each action has its own
    while (reinterpret_cast<uintptr_t>(data) % alignment) alignment /= 2;
    return alignment;
  }
  /// Everything that has to be so is a multiple of 16 bytes.
  bool in_sixteens() const {
    const int64_t size = static_cast<int64_t>(size_of(dtype));
    return alignment() >= 16 && rows * size % 16 == 0 && leading_dimension() * size % 16 == 0 && batch_stride * size % 16 == 0;
  }
};

/// One right side for all: the batch is more rows, where those follow each other.
bool join_batch(Matrix& a, const Matrix& b, Matrix& c, int64_t batch) {
  if (batch == 1 || b.batch_stride) return false;
  if (a.rows == 1) a.row_stride = a.batch_stride, c.row_stride = c.batch_stride;
  if (a.batch_stride != a.rows * a.row_stride || c.batch_stride != c.rows * c.row_stride) return false;
  Matrix rows = a, results = c;
  rows.rows *= batch, results.rows *= batch;
  rows.batch_stride = results.batch_stride = 0;
  for (const Matrix& joined : {rows, results})
    if (joined.rows > INT32_MAX || !(joined.by_columns() || joined.transposed().by_columns())) return false;
  a = rows, c = results;
  return true;
}

cudaDataType type_of(DType dtype) {
  switch (dtype) {
    case DType::f64: return CUDA_R_64F;
    case DType::bf16: return CUDA_R_16BF;
    case DType::f8e4m3: return CUDA_R_8F_E4M3;
    case DType::f8e5m2: return CUDA_R_8F_E5M2;
    default: return CUDA_R_32F;
  }
}

bool is_float8(const Matrix& matrix) { return size_of(matrix.dtype) == 1; }

void describe(Layout& layout, const Matrix& matrix, bool transposed, int32_t batch) {
  const Matrix stored = transposed ? matrix.transposed() : matrix;
  TITAN_CUBLASLT_CHECK(cublasLtMatrixLayoutCreate(layout.slot(), type_of(stored.dtype), static_cast<uint64_t>(stored.rows), static_cast<uint64_t>(stored.columns), stored.leading_dimension()));
  TITAN_CUBLASLT_CHECK(cublasLtMatrixLayoutSetAttribute(layout.get(), CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch));
  TITAN_CUBLASLT_CHECK(cublasLtMatrixLayoutSetAttribute(layout.get(), CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stored.batch_stride, sizeof stored.batch_stride));
}

class Product : public Plan {
 public:
  Product(cublasLtHandle_t handle, void* workspace) : handle_(handle), workspace_(workspace) {}

  /// Asks cuBLASLt for an algorithm. Returns why there is none, or "".
  std::string choose(const Matrix& a, const Matrix& b, const Matrix& c, int32_t batch, bool rounds_to_tf32) {
    left_ = a.operand, right_ = b.operand;
    wide_ = c.dtype == DType::f64;
    const cublasComputeType_t compute = wide_ ? CUBLAS_COMPUTE_64F : rounds_to_tf32 && a.dtype == DType::f32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    TITAN_CUBLASLT_CHECK(cublasLtMatmulDescCreate(description_.slot(), compute, wide_ ? CUDA_R_64F : CUDA_R_32F));
    // A matrix may be both ways where it has one row or column: float8 takes A by rows, B by columns.
    const bool a_by_rows = a.transposed().by_columns() && (is_float8(a) || !a.by_columns()), b_by_rows = !b.by_columns();
    const cublasOperation_t operations[] = {a_by_rows ? CUBLAS_OP_T : CUBLAS_OP_N, b_by_rows ? CUBLAS_OP_T : CUBLAS_OP_N};
    TITAN_CUBLASLT_CHECK(cublasLtMatmulDescSetAttribute(description_.get(), CUBLASLT_MATMUL_DESC_TRANSA, &operations[0], sizeof operations[0]));
    TITAN_CUBLASLT_CHECK(cublasLtMatmulDescSetAttribute(description_.get(), CUBLASLT_MATMUL_DESC_TRANSB, &operations[1], sizeof operations[1]));
    describe(a_, a, a_by_rows, batch);
    describe(b_, b, b_by_rows, batch);
    describe(c_, c, false, batch);
    Preference preference;
    TITAN_CUBLASLT_CHECK(cublasLtMatmulPreferenceCreate(preference.slot()));
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) { TITAN_CUBLASLT_CHECK(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value)); };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{Products::WORKSPACE_BYTES});
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, a.alignment());
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, b.alignment());
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c.alignment());
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c.alignment());
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, description_.get(), a_.get(), b_.get(), c_.get(), c_.get(), preference.get(), 1, &found, &count);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) return cublasLtGetStatusString(status);
    check(status, "cublasLtMatmulAlgoGetHeuristic");
    if (!count || found.state != CUBLAS_STATUS_SUCCESS) return "its heuristic finds no algorithm";
    algorithm_ = found.algo;
    return "";
  }

  /// Factors are read from the host's memory before the call returns (cuBLAS, "Scalar Parameters"): a graph has them in it.
  void run(const Call& call) const override {
    const bool adds = call.adds(call.attributes[0].i);
    const float one = 1, factor = adds;
    const double wide_one = 1, wide_factor = adds;
    void* const c = call[2].data;
    check(cublasLtMatmul(handle_, description_.get(), wide_ ? static_cast<const void*>(&wide_one) : &one, call[left_].data, a_.get(), call[right_].data, b_.get(),
                         wide_ ? static_cast<const void*>(&wide_factor) : &factor, c, c_.get(), c, c_.get(), &algorithm_, workspace_, Products::WORKSPACE_BYTES, static_cast<cudaStream_t>(call.stream)),
          "cublasLtMatmul");
  }

 private:
  cublasLtHandle_t handle_;
  void* workspace_;
  Description description_;
  Layout a_, b_, c_;
  cublasLtMatmulAlgo_t algorithm_{};
  int left_ = 0, right_ = 1;
  bool wide_ = false;
};

/// Why cuBLASLt does not take these, as far as that is known without asking; "" else.
std::string refusal(const Matrix& a, const Matrix& b, const Matrix& c, bool rounds, int capability) {
  if (!c.rows || !c.columns || !a.columns) return "it has no elements, or sums over none";
  if (is_float8(a) && is_float8(b)) {
    if (capability < 89) return "float8 is multiplied by GPUs from sm_89 on";
    if (a.dtype == DType::f8e5m2 && b.dtype == DType::f8e5m2) return "both are f8e5m2";
    if (!a.transposed().by_columns() || !b.by_columns()) return "float8 is multiplied where what is summed over is contiguous in both";
    if (!a.transposed().in_sixteens() || !b.in_sixteens() || !c.in_sixteens()) return "float8 is multiplied at multiples of 16 bytes";
    return "";
  }
  if (a.dtype != b.dtype) return "its operands are of two types";
  if (rounds && a.dtype != DType::bf16) return "its operands have yet to be rounded to bf16";
  return "";
}

enum class Way { either, own, library };

Way way() {
  const char* wanted = std::getenv("TITAN_CUDA_PRODUCTS");
  if (!wanted || !*wanted || !std::strcmp(wanted, "auto")) return Way::either;
  if (!std::strcmp(wanted, "own")) return Way::own;
  if (!std::strcmp(wanted, "cublaslt")) return Way::library;
  throw Failure(TITAN_STATUS_INVALID_ARGUMENT, text("TITAN_CUDA_PRODUCTS is ", wanted, "; expected: auto, own or cublaslt"));
}

}  // namespace

Products::Products(int capability) : capability_(capability), workspace_(make_device_memory(WORKSPACE_BYTES)) { TITAN_CUBLASLT_CHECK(cublasLtCreate(&handle_)); }

Products::~Products() {
  if (handle_) (void)cublasLtDestroy(handle_);
}

std::string Products::name() {
  if (way() == Way::own) return "libtitan's own";
  const size_t version = cublasLtGetVersion();
  return text("cuBLASLt ", version / 10000, ".", version / 100 % 100);
}

std::unique_ptr<Plan> Products::plan(const Call& call) const {
  const Way wanted = way();
  if (wanted == Way::own) return nullptr;
  Matrix a(call, 0), b(call, 1), c(call, 2);
  int64_t batch = call[2].dims[0];
  if (join_batch(a, b, c, batch)) batch = 1;
  if (!c.by_columns()) {  // c^T = b^T a^T
    const Matrix left = a.transposed();
    a = b.transposed(), b = left, c = c.transposed();
  }
  std::string why = batch ? refusal(a, b, c, call.attributes[1].i == 1, capability_) : "it has no elements";
  if (batch > INT32_MAX) why = "its batch is over 2^31";
  auto product = std::make_unique<Product>(handle_, workspace_.get());
  if (why.empty()) why = product->choose(a, b, c, static_cast<int32_t>(batch), call.attributes[1].i == 2);
  if (why.empty()) return product;
  if (wanted == Way::library)
    throw Failure(TITAN_STATUS_INVALID_PROGRAM, text("cuBLASLt does not take this product: ", why, "; expected: one that it takes, as TITAN_CUDA_PRODUCTS is cublaslt; fix: TITAN_CUDA_PRODUCTS=auto, by which a kernel of ours runs it"));
  return nullptr;
}

}  // namespace titan::cuda
