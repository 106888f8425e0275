// The calls of cuBLASLt, each as NVIDIA's documentation of it says ("cuBLAS", chapter "Using the cuBLASLt API"; sections are named below). What a call
// refuses, cublasLtGetStatusString tells. A product is work of its stream, which reads and writes what its layouts say. Of the algorithms that a
// preference allows, the heuristic picks the one that harms a careless caller most: K in parts, summed in a workspace or in the type of the output.
#ifdef TITAN_TOOLKIT_HEADER
#include <cublasLt.h>
#else
#include "cublaslt.h"
#endif

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "../../failure.h"
#include "machine.h"

using namespace titan;
using namespace titan::cuda::host;

struct cublasLtContext {};

namespace {

// Both headers have these numbers, as programs that were compiled with one may run with the other.
static_assert(CUBLAS_STATUS_INVALID_VALUE == 7 && CUBLAS_STATUS_EXECUTION_FAILED == 13 && CUBLAS_STATUS_NOT_SUPPORTED == 15 && CUBLAS_OP_N == 0 && CUBLAS_OP_T == 1);
static_assert(CUBLAS_COMPUTE_32F == 68 && CUBLAS_COMPUTE_64F == 70 && CUBLAS_COMPUTE_32F_FAST_TF32 == 77 && CUDA_R_32F == 0 && CUDA_R_64F == 1 && CUDA_R_16BF == 14 && CUDA_R_8F_E4M3 == 28 && CUDA_R_8F_E5M2 == 29);
static_assert(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT == 5 && CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET == 6 && CUBLASLT_MATMUL_DESC_TRANSA == 3 && CUBLASLT_MATMUL_DESC_TRANSB == 4);
static_assert(CUBLASLT_REDUCTION_SCHEME_INPLACE == 1 && CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE == 2 && CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE == 4 && CUBLASLT_REDUCTION_SCHEME_MASK == 7);
static_assert(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES == 1 && CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK == 3 && CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES == 5 && CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES == 8);
static_assert(sizeof(cublasLtMatmulAlgo_t) == 64 && sizeof(cublasLtMatmulHeuristicResult_t) == 96);

struct Layout : cublasLtMatrixLayoutOpaque_t {
  cudaDataType type;
  int64_t rows, columns, ld;
  int32_t batch = 1;
  int64_t stride = 0;
};
struct Description : cublasLtMatmulDescOpaque_t {
  cublasComputeType_t compute;
  cudaDataType scale;
  cublasOperation_t a = CUBLAS_OP_N, b = CUBLAS_OP_N;
};
struct Preference : cublasLtMatmulPreferenceOpaque_t {
  uint64_t workspace = 0;
  uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_MASK, alignments[4] = {256, 256, 256, 256};  // of A, B, C, D
};
/// What the opaque words of an algorithm hold.
struct Algorithm {
  uint64_t product, scheme, workspace;
  uint32_t alignments[4];
  uint64_t rest[3];
};
static_assert(sizeof(Algorithm) == sizeof(cublasLtMatmulAlgo_t));

/// Handles, descriptors, layouts and preferences that have not been destroyed.
std::set<const void*>& living() {
  static auto& it = *new std::set<const void*>;
  return it;
}
std::string& reason() {
  static auto& it = *new std::string;
  return it;
}
cublasStatus_t refuse(cublasStatus_t status, std::string why) { return reason() = std::move(why), status; }

/// Where a descriptor's memory may be another's by now, only the set knows.
bool are_there(std::initializer_list<const void*> objects) {
  for (const void* object : objects)
    if (!living().count(object)) return complain("cuBLASLt is given a handle or descriptor that is not there"), false;
  return true;
}

template <class Object, class Pointer> cublasStatus_t create(Pointer* pointer, Object* object, bool fails) {
  if (fails) return delete object, refuse(CUBLAS_STATUS_ALLOC_FAILED, "there is no memory for it");
  living().insert(object);
  runtime().descriptors++;
  *pointer = object;
  return CUBLAS_STATUS_SUCCESS;
}
template <class Object> cublasStatus_t destroy(Object* object, bool fails) {
  if (!are_there({object})) return refuse(CUBLAS_STATUS_INVALID_VALUE, "it is not there");
  living().erase(object);
  runtime().descriptors--;
  delete object;
  return fails ? CUBLAS_STATUS_INTERNAL_ERROR : CUBLAS_STATUS_SUCCESS;
}
template <class T> cublasStatus_t set(T& field, const void* buffer, size_t bytes) {
  if (!buffer || bytes != sizeof field) return refuse(CUBLAS_STATUS_INVALID_VALUE, text("an attribute of ", sizeof field, " bytes is set from ", bytes));
  std::memcpy(&field, buffer, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

size_t size_of(cudaDataType type) { return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : type == CUDA_R_16BF ? 2 : 1; }
bool is_float8(cudaDataType type) { return type == CUDA_R_8F_E4M3 || type == CUDA_R_8F_E5M2; }

struct Operands {
  const Description& op;
  const Layout &a, &b, &c, &d;
  int64_t M() const { return d.rows; }
  int64_t N() const { return d.columns; }
  int64_t K() const { return op.a == CUBLAS_OP_N ? a.columns : a.rows; }
};

/// Section "cublasLtMatmul()": the table of types. No product of two E5M2.
bool types_go_together(const Operands& p) {
  if (p.c.type != p.d.type) return false;
  if (p.op.compute == CUBLAS_COMPUTE_64F) return p.op.scale == CUDA_R_64F && p.a.type == CUDA_R_64F && p.b.type == CUDA_R_64F && p.d.type == CUDA_R_64F;
  if (p.op.scale != CUDA_R_32F) return false;
  if (p.op.compute != CUBLAS_COMPUTE_32F && (p.op.compute != CUBLAS_COMPUTE_32F_FAST_TF32 || p.a.type != CUDA_R_32F)) return false;
  if (p.a.type == CUDA_R_32F) return p.b.type == CUDA_R_32F && p.d.type == CUDA_R_32F;
  const bool stored = p.d.type == CUDA_R_32F || p.d.type == CUDA_R_16BF;
  if (p.a.type == CUDA_R_16BF) return p.b.type == CUDA_R_16BF && stored;
  return is_float8(p.a.type) && is_float8(p.b.type) && stored && !(p.a.type == CUDA_R_8F_E5M2 && p.b.type == CUDA_R_8F_E5M2);
}

/// Why there is no such product; "" if there is. `status` then says of which kind that is.
std::string wrong_with(const Operands& p, cublasStatus_t& status) {
  status = CUBLAS_STATUS_INVALID_VALUE;
  const Layout* const all[] = {&p.a, &p.b, &p.c, &p.d};
  for (int i = 0; i < 4; i++) {
    const Layout& x = *all[i];
    const std::string name(1, "ABCD"[i]);
    if (x.rows < 1 || x.columns < 1) return text(name, " has ", x.rows, " rows and ", x.columns, " columns");
    // Section "cublasLtMatrixLayoutAttribute_t", CUBLASLT_MATRIX_LAYOUT_LD.
    if (x.ld < x.rows) return text(name, " has a leading dimension of ", x.ld, ", less than its ", x.rows, " rows");
    if (x.batch != p.d.batch) return text(name, " has a batch of ", x.batch, ", and D of ", p.d.batch);
    if (i == 3 && x.batch > 1 && x.stride < x.ld * (x.columns - 1) + x.rows && x.ld < x.stride * (x.batch - 1) + x.rows) return text("matrices of D overlap: they are ", x.stride, " apart");
  }
  const int64_t m = p.op.a == CUBLAS_OP_N ? p.a.rows : p.a.columns, k = p.op.b == CUBLAS_OP_N ? p.b.rows : p.b.columns, n = p.op.b == CUBLAS_OP_N ? p.b.columns : p.b.rows;
  if (m != p.M() || n != p.N() || k != p.K() || p.c.rows != p.M() || p.c.columns != p.N())
    return text("A gives ", m, " rows and sums over ", p.K(), ", B sums over ", k, " and gives ", n, " columns, C is ", p.c.rows, " x ", p.c.columns, " and D ", p.M(), " x ", p.N());
  status = CUBLAS_STATUS_NOT_SUPPORTED;
  if (!types_go_together(p)) return "the types of A, B, C, D, of sums and of factors do not go together";
  // Section "8-bit and 4-bit Floating Point Data Types (FP8/FP4) Usage": on GPUs of 9.0, A transposed and B not, and all at multiples of 16 bytes.
  if (is_float8(p.a.type)) {
    if (p.op.a != CUBLAS_OP_T || p.op.b != CUBLAS_OP_N) return "float8 takes A transposed and B not";
    for (const Layout* x : all)
      if (x->ld * static_cast<int64_t>(size_of(x->type)) % 16 || x->rows * static_cast<int64_t>(size_of(x->type)) % 16 || x->stride * static_cast<int64_t>(size_of(x->type)) % 16) return "float8 takes rows, strides and leading dimensions of multiples of 16 bytes";
  }
  return "";
}

/// Of everything that an algorithm hangs on.
uint64_t hash_of(const Operands& p) {
  uint64_t hash = 14695981039346656037u;
  const auto add = [&](int64_t value) { hash = (hash ^ static_cast<uint64_t>(value)) * 1099511628211u; };
  for (const int64_t value : {int64_t{p.op.compute}, int64_t{p.op.scale}, int64_t{p.op.a}, int64_t{p.op.b}}) add(value);
  for (const Layout* x : {&p.a, &p.b, &p.c, &p.d})
    for (const int64_t value : {int64_t{x->type}, x->rows, x->columns, x->ld, int64_t{x->batch}, x->stride}) add(value);
  return hash;
}

/// To the 10 bits of mantissa that tensor cores take of an f32, to nearest even.
float to_tf32(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  return x - x != 0 ? x : __builtin_bit_cast(float, (bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu);
}

double load(cudaDataType type, const void* data, int64_t i) {
  switch (type) {
    case CUDA_R_64F: return static_cast<const double*>(data)[i];
    case CUDA_R_32F: return static_cast<const float*>(data)[i];
    case CUDA_R_16BF: return static_cast<const bf16*>(data)[i];
    case CUDA_R_8F_E4M3: return static_cast<const f8e4m3*>(data)[i];
    default: return static_cast<const f8e5m2*>(data)[i];
  }
}
void store(cudaDataType type, void* data, int64_t i, double x) {
  if (type == CUDA_R_64F) static_cast<double*>(data)[i] = x;
  else if (type == CUDA_R_32F) static_cast<float*>(data)[i] = static_cast<float>(x);
  else static_cast<bf16*>(data)[i] = bf16(static_cast<float>(x));
}

struct Job {
  Description op;
  Layout a, b, c, d;
  const void *A, *B, *C;
  void* D;
  double alpha, beta;
  uint64_t scheme;
};

/// D = alpha op(A) op(B) + beta C, each element along K in order, in `real`; with a scheme in two halves.
template <class real> void multiply(const Job& job) {
  const Operands p{job.op, job.a, job.b, job.c, job.d};
  const int64_t M = p.M(), N = p.N(), K = p.K(), half = job.scheme ? K / 2 : 0;
  const bool narrow = job.scheme != CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE && job.d.type == CUDA_R_16BF;
  const auto taken = [&](cudaDataType type, const void* data, int64_t i) {
    const double x = load(type, data, i);
    return static_cast<real>(job.op.compute == CUBLAS_COMPUTE_32F_FAST_TF32 ? static_cast<double>(to_tf32(static_cast<float>(x))) : x);
  };
  std::vector<real> left(static_cast<size_t>(M * K)), right(static_cast<size_t>(N * K));
  for (int64_t batch = 0; batch < job.d.batch; batch++) {
    for (int64_t m = 0; m < M; m++)
      for (int64_t k = 0; k < K; k++) left[static_cast<size_t>(m * K + k)] = taken(job.a.type, job.A, batch * job.a.stride + (job.op.a == CUBLAS_OP_N ? m + k * job.a.ld : k + m * job.a.ld));
    for (int64_t n = 0; n < N; n++)
      for (int64_t k = 0; k < K; k++) right[static_cast<size_t>(n * K + k)] = taken(job.b.type, job.B, batch * job.b.stride + (job.op.b == CUBLAS_OP_N ? k + n * job.b.ld : n + k * job.b.ld));
    for (int64_t n = 0; n < N; n++)
      for (int64_t m = 0; m < M; m++) {
        const auto part = [&](int64_t from, int64_t to) {
          real sum = 0;
          for (int64_t k = from; k < to; k++) sum += left[static_cast<size_t>(m * K + k)] * right[static_cast<size_t>(n * K + k)];
          return job.scheme && narrow ? static_cast<real>(float(bf16(static_cast<float>(sum)))) : sum;
        };
        real sum = part(half, K);
        if (half) sum = part(0, half) + sum;
        sum *= static_cast<real>(job.alpha);
        if (job.beta != 0) sum += static_cast<real>(job.beta) * static_cast<real>(load(job.c.type, job.C, batch * job.c.stride + m + n * job.c.ld));
        store(job.d.type, job.D, batch * job.d.stride + m + n * job.d.ld, static_cast<double>(sum));
      }
  }
}

Touch touch_by(const void* data, const Layout& x, bool writes) {
  const int64_t reach = (x.batch - 1) * x.stride + (x.columns - 1) * x.ld + x.rows;
  return touch_of(data, static_cast<size_t>(reach) * size_of(x.type), writes, !writes && reach == x.rows * x.columns * x.batch);
}

}  // namespace

extern "C" {

size_t cublasLtGetVersion(void) { return 130002; }

const char* cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "CUBLAS_STATUS_INTERNAL_ERROR";
  }
}

/// What the last call that was refused was refused for.
const char* cublasLtGetStatusString(cublasStatus_t status) { return status == CUBLAS_STATUS_INTERNAL_ERROR ? "a call failed" : reason().c_str(); }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  const Entered entered(__func__);
  return create(handle, new cublasLtContext, entered.fails);
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  const Entered entered(__func__);
  return destroy(handle, entered.fails);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows, uint64_t columns, int64_t ld) {
  const Entered entered(__func__);
  return create(layout, new Layout{{}, type, static_cast<int64_t>(rows), static_cast<int64_t>(columns), ld}, entered.fails);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  const Entered entered(__func__);
  return destroy(static_cast<Layout*>(layout), entered.fails);
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute, const void* buffer, size_t bytes) {
  const Entered entered(__func__);
  if (entered.fails) return CUBLAS_STATUS_INTERNAL_ERROR;
  if (!are_there({layout})) return refuse(CUBLAS_STATUS_INVALID_VALUE, "the layout is not there");
  auto& it = *static_cast<Layout*>(layout);
  if (attribute == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT) return set(it.batch, buffer, bytes);
  if (attribute == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET) return set(it.stride, buffer, bytes);
  return refuse(CUBLAS_STATUS_INVALID_VALUE, text("there is no attribute ", static_cast<int>(attribute), " of layouts here"));
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description, cublasComputeType_t compute, cudaDataType_t scale) {
  const Entered entered(__func__);
  return create(description, new Description{{}, compute, scale}, entered.fails);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  const Entered entered(__func__);
  return destroy(static_cast<Description*>(description), entered.fails);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t attribute, const void* buffer, size_t bytes) {
  const Entered entered(__func__);
  if (entered.fails) return CUBLAS_STATUS_INTERNAL_ERROR;
  if (!are_there({description})) return refuse(CUBLAS_STATUS_INVALID_VALUE, "the description is not there");
  auto& it = *static_cast<Description*>(description);
  if (attribute == CUBLASLT_MATMUL_DESC_TRANSA) return set(it.a, buffer, bytes);
  if (attribute == CUBLASLT_MATMUL_DESC_TRANSB) return set(it.b, buffer, bytes);
  return refuse(CUBLAS_STATUS_INVALID_VALUE, text("there is no attribute ", static_cast<int>(attribute), " of descriptions here"));
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  const Entered entered(__func__);
  return create(preference, new Preference, entered.fails);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  const Entered entered(__func__);
  return destroy(static_cast<Preference*>(preference), entered.fails);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, const void* buffer, size_t bytes) {
  const Entered entered(__func__);
  if (entered.fails) return CUBLAS_STATUS_INTERNAL_ERROR;
  if (!are_there({preference})) return refuse(CUBLAS_STATUS_INVALID_VALUE, "the preference is not there");
  auto& it = *static_cast<Preference*>(preference);
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return set(it.workspace, buffer, bytes);
  if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) return set(it.schemes, buffer, bytes);
  if (attribute >= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES && attribute <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES) return set(it.alignments[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], buffer, bytes);
  return refuse(CUBLAS_STATUS_INVALID_VALUE, text("there is no attribute ", static_cast<int>(attribute), " of preferences here"));
}

/// Section "cublasLtMatmulAlgoGetHeuristic()".
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t description, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference, int requested, cublasLtMatmulHeuristicResult_t results[], int* returned) {
  const Entered entered(__func__);
  if (entered.fails) return CUBLAS_STATUS_INTERNAL_ERROR;
  if (!are_there({handle, description, a, b, c, d, preference})) return refuse(CUBLAS_STATUS_INVALID_VALUE, "an argument is not there");
  if (requested < 1) return refuse(CUBLAS_STATUS_INVALID_VALUE, "no algorithm is asked for");
  const Operands p{*static_cast<Description*>(description), *static_cast<Layout*>(a), *static_cast<Layout*>(b), *static_cast<Layout*>(c), *static_cast<Layout*>(d)};
  const auto& wanted = *static_cast<Preference*>(preference);
  cublasStatus_t status;
  *returned = 0;
  if (std::string wrong = wrong_with(p, status); !wrong.empty()) return refuse(status, std::move(wrong));
  const Layout* const all[] = {&p.a, &p.b, &p.c, &p.d};
  for (int i = 0; i < 4; i++)
    if (wanted.alignments[i] < (is_float8(p.a.type) ? 16 : size_of(all[i]->type))) return refuse(CUBLAS_STATUS_NOT_SUPPORTED, text("no algorithm takes ", std::string(1, "ABCD"[i]), " at multiples of ", wanted.alignments[i], " bytes"));
  Algorithm algorithm{hash_of(p), CUBLASLT_REDUCTION_SCHEME_NONE, 0, {}, {}};
  std::copy_n(wanted.alignments, 4, algorithm.alignments);
  const uint64_t sums = static_cast<uint64_t>(p.M() * p.N() * p.d.batch), room = 2 * sums * (p.op.compute == CUBLAS_COMPUTE_64F ? 8 : 4);
  for (const uint32_t scheme : {CUBLASLT_REDUCTION_SCHEME_INPLACE, CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE})
    if (p.K() > 1 && !algorithm.scheme && wanted.schemes & scheme && room <= wanted.workspace) algorithm.scheme = scheme, algorithm.workspace = room;
  results[0] = {};
  std::memcpy(&results[0].algo, &algorithm, sizeof algorithm);
  results[0].workspaceSize = algorithm.workspace;
  results[0].state = CUBLAS_STATUS_SUCCESS;
  *returned = 1;
  return CUBLAS_STATUS_SUCCESS;
}

/// Section "cublasLtMatmul()". It may be captured: section "CUDA Graphs Support".
cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t description, const void* alpha, const void* A, cublasLtMatrixLayout_t a, const void* B, cublasLtMatrixLayout_t b,
                              const void* beta, const void* C, cublasLtMatrixLayout_t c, void* D, cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t* chosen, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  const Entered entered(__func__);
  if (entered.fails) return CUBLAS_STATUS_INTERNAL_ERROR;
  if (!are_there({handle, description, a, b, c, d})) return refuse(CUBLAS_STATUS_INVALID_VALUE, "an argument is not there");
  const Operands p{*static_cast<Description*>(description), *static_cast<Layout*>(a), *static_cast<Layout*>(b), *static_cast<Layout*>(c), *static_cast<Layout*>(d)};
  cublasStatus_t status;
  if (std::string wrong = wrong_with(p, status); !wrong.empty()) return refuse(status, std::move(wrong));
  if (!alpha || !beta || !A || !B || !D) return refuse(CUBLAS_STATUS_INVALID_VALUE, "an operand or a factor is null");
  if (!chosen) return refuse(CUBLAS_STATUS_INVALID_VALUE, "no algorithm is given: each call would choose one");
  Algorithm algorithm;
  std::memcpy(&algorithm, chosen, sizeof algorithm);
  if (algorithm.product != hash_of(p)) return refuse(CUBLAS_STATUS_INVALID_VALUE, "the algorithm was chosen for another product");
  if (workspace_bytes < algorithm.workspace) return refuse(CUBLAS_STATUS_INVALID_VALUE, text("the algorithm needs a workspace of ", algorithm.workspace, " bytes, and has ", workspace_bytes));
  if (algorithm.workspace && reinterpret_cast<uintptr_t>(workspace) % 16) return refuse(CUBLAS_STATUS_INVALID_VALUE, "the workspace is not at a multiple of 16 bytes");
  const auto factor = [&](const void* at) { return p.op.scale == CUDA_R_64F ? *static_cast<const double*>(at) : double(*static_cast<const float*>(at)); };
  const Job job{p.op, p.a, p.b, p.c, p.d, A, B, C, D, factor(alpha), factor(beta), algorithm.scheme};
  if (job.beta != 0 && !C) return refuse(CUBLAS_STATUS_INVALID_VALUE, "C is null, and is to be added");
  if (C == D && (p.c.ld != p.d.ld || p.c.stride != p.d.stride)) return refuse(CUBLAS_STATUS_INVALID_VALUE, "C and D are one place, and have different layouts");
  const void* const places[] = {A, B, C, D};
  for (int i = 0; i < 4; i++)
    if (reinterpret_cast<uintptr_t>(places[i]) % algorithm.alignments[i]) complain(text("a product's ", std::string(1, "ABCD"[i]), " is not at a multiple of ", algorithm.alignments[i], " bytes, for which its algorithm was chosen"));
  std::vector<Touch> touches{touch_by(A, p.a, false), touch_by(B, p.b, false), touch_by(D, p.d, true)};
  if (job.beta != 0) touches.push_back(touch_by(C, p.c, false));
  if (algorithm.workspace) touches.push_back(touch_of(workspace, algorithm.workspace, true));
  const auto work = [job] {
    if (job.op.compute == CUBLAS_COMPUTE_64F) multiply<double>(job);
    else multiply<float>(job);
    return std::string();
  };
  const cudaError_t error = put(stream, {"a product", work, std::move(touches), nullptr, nullptr});
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : refuse(CUBLAS_STATUS_EXECUTION_FAILED, runtime().played.problem);
}
}
