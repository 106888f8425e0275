// Products by plans on the played cuBLASLt: what they compute, what they leave to our kernel, and that the played library refuses what NVIDIA's
// documents forbid.
#include <limits>

#include "../cuda/host/runtime.h"
#include "../cuda/products.h"
#include "test.h"

using namespace titan;
using namespace titan::test;
using namespace titan::cuda;

namespace {

constexpr int SM_80 = 80, SM_90 = 90;

std::mt19937 engine(1);
int64_t pick(std::initializer_list<int64_t> from) { return from.begin()[engine() % from.size()]; }

/// An array's memory with its guards, on the played GPU.
template <class T> struct OnGpu {
  Array<T>& array;
  DeviceMemory memory;
  OnGpu(Array<T>& array, cudaStream_t stream) : array(array), memory(make_device_memory(bytes())) {
    TITAN_CUDA_CHECK(cudaMemcpyAsync(memory.get(), array.memory.data(), bytes(), cudaMemcpyHostToDevice, stream));
    TITAN_CUDA_CHECK(cudaStreamSynchronize(stream));
  }
  size_t bytes() const { return array.memory.size() * sizeof(T); }
  Tensor tensor() const {
    Tensor tensor = array.tensor();
    tensor.data = static_cast<T*>(memory.get()) + Array<T>::GUARD;
    return tensor;
  }
  void fetch(cudaStream_t stream) {
    TITAN_CUDA_CHECK(cudaMemcpyAsync(array.memory.data(), memory.get(), bytes(), cudaMemcpyDeviceToHost, stream));
    TITAN_CUDA_CHECK(cudaStreamSynchronize(stream));
  }
};

/// c = a b by a plan, or false where there is none.
template <class A, class B, class C> bool multiply(const Products& products, Array<A>& a, Array<B>& b, Array<C>& c, int64_t accumulate, int64_t rounds, uint32_t flags = FLAG_FIRST) {
  const Stream stream = make_stream();
  OnGpu<A> left(a, stream.get());
  OnGpu<B> right(b, stream.get());
  OnGpu<C> out(c, stream.get());
  const Tensor operands[] = {left.tensor(), right.tensor(), out.tensor()};
  const Attribute attributes[] = {{accumulate}, {rounds}};
  Call call = {operands, 3, attributes, 2, flags, 1};
  call.stream = stream.get();
  EXPECT(kernel("gemm").check(call).empty());
  const auto plan = products.plan(call);
  const int64_t calls = host::played().calls;
  if (plan) plan->run(call);
  EXPECT(host::played().calls == calls + (plan != nullptr));  // no choice is left for a run
  out.fetch(stream.get());
  TITAN_CUDA_CHECK(cudaStreamSynchronize(stream.get()));
  return plan != nullptr;
}
template <class A, class B, class C> bool multiply(Array<A>& a, Array<B>& b, Array<C>& c, int64_t accumulate, int64_t rounds, int capability = SM_90) { return multiply(Products(capability), a, b, c, accumulate, rounds); }

/// A batch of matrices by rows or by columns, rows apart by more than their length if `padded`; where a dim is 1, any stride.
template <class T> Array<T> matrix(int64_t B, int64_t R, int64_t C, bool by_columns, bool padded) {
  int64_t row = by_columns ? 1 : C + 3 * padded, column = by_columns ? R + 3 * padded : 1;
  const int64_t batch = by_columns ? column * C : row * R;
  if (R == 1 && padded) row = 0;
  if (C == 1 && padded) column = 5;
  return Array<T>({B, R, C}, {batch, row, column});
}

template <class T> constexpr double EPSILON = std::is_same_v<T, double> ? 0x1p-53 : 0x1p-24;

/// Is each element the sum in f64, with K + 8 roundings, and one to what it is stored as?
template <class A, class B, class C> bool is_product(const Array<A>& a, const Array<B>& b, const Array<C>& c, double before) {
  const int64_t M = c.dims[1], N = c.dims[2], K = a.dims[2];
  bool near = true;
  for (int64_t i = 0; i < c.size(); i++) {
    const int64_t batch = i / (M * N), m = i / N % M, n = i % N;
    double value = before, size = std::fabs(before);
    for (int64_t k = 0; k < K; k++) {
      const double term = double(a[((a.dims[0] == 1 ? 0 : batch) * M + m) * K + k]) * double(b[((b.dims[0] == 1 ? 0 : batch) * K + k) * N + n]);
      value += term, size += std::fabs(term);
    }
    const double error = double(K + 8) * EPSILON<C> * size;
    near = near && std::fabs(double(c[i]) - value) <= error + (std::is_same_v<C, bf16> ? 0x1p-8 * (std::fabs(value) + error) : 0);
  }
  return near && c.guarded();
}

template <class A, class B, class C> void products_of_all_shapes_and_strides_are_what_they_mean(bool rounds) {
  host::play({});
  const Products products(SM_90);
  const int64_t left = host::left();
  for (int i = 0; i < 60; i++) {
    const int64_t M = pick({1, 2, 7, 33}), N = pick({1, 3, 16, 35}), K = pick({1, 2, 5, 40}), batch = pick({1, 1, 2, 3});
    auto a = matrix<A>(engine() % 2 ? batch : 1, M, K, engine() % 2, engine() % 2);
    auto b = matrix<B>(engine() % 2 ? batch : 1, K, N, engine() % 2, engine() % 2);
    auto c = matrix<C>(batch, M, N, engine() % 2, engine() % 2);
    const int64_t accumulate = pick({0, 1, 2});
    const uint32_t flags = engine() % 2 ? uint32_t{FLAG_FIRST} : 0;
    const bool adds = accumulate == 1 || (accumulate == 2 && !flags);
    a.random(unsigned(engine())), b.random(unsigned(engine()));
    c.fill([&](int64_t) { return adds ? 3 : std::numeric_limits<double>::quiet_NaN(); });
    EXPECT(multiply(products, a, b, c, accumulate, rounds, flags));
    EXPECT(is_product(a, b, c, adds ? 3 : 0));
    EXPECT(host::played().problem.empty() && host::left() == left);
  }
}

/// Heads of attention: a batch whose matrices lie between each other's rows.
void a_batch_may_lie_between_rows() {
  host::play({});
  constexpr int64_t T = 5, H = 3, K = 8;
  Array<float> a({H, T, K}, {K, H * K, 1}), b({H, K, T}, {K, 1, H * K}), c({H, T, T}, {T, H * T, 1});
  a.random(1), b.random(2);
  EXPECT(multiply(a, b, c, 0, false) && is_product(a, b, c, 0));
}

template <class A, class B> bool float8_is_planned(int64_t M, int64_t N, int64_t K, bool a_by_columns, bool b_by_columns, int capability = SM_90) {
  host::play({});
  auto a = matrix<A>(1, M, K, a_by_columns, false);
  auto b = matrix<B>(1, K, N, b_by_columns, false);
  Array<bf16> c({1, M, N});
  a.random(1), b.random(2);
  const bool planned = multiply(a, b, c, 0, true, capability);
  EXPECT(!planned || is_product(a, b, c, 0));
  return planned;
}

void float8_is_multiplied_where_gpus_multiply_it() {
  EXPECT((float8_is_planned<f8e4m3, f8e4m3>(32, 16, 64, false, true)));
  EXPECT((float8_is_planned<f8e5m2, f8e4m3>(32, 16, 64, false, true)));
  EXPECT((float8_is_planned<f8e4m3, f8e5m2>(32, 16, 64, false, true)));
  EXPECT((!float8_is_planned<f8e5m2, f8e5m2>(32, 16, 64, false, true)));
  EXPECT((!float8_is_planned<f8e4m3, f8e4m3>(32, 16, 64, true, true)));
  EXPECT((!float8_is_planned<f8e4m3, f8e4m3>(32, 16, 64, false, false)));
  EXPECT((!float8_is_planned<f8e4m3, f8e4m3>(32, 16, 40, false, true)));
  EXPECT((!float8_is_planned<f8e4m3, f8e4m3>(32, 20, 64, false, true)));
  EXPECT((!float8_is_planned<f8e4m3, f8e4m3>(32, 16, 64, false, true, SM_80)));
}

/// Why a product is refused where no kernel of ours may run it.
template <class A, class B, class C> std::string refusal(int64_t B_, int64_t M, int64_t N, int64_t K, bool rounds) {
  std::string why;
  host::play({});
  setenv("TITAN_CUDA_PRODUCTS", "cublaslt", 1);
  try {
    const Products products(SM_90);
    const Tensor operands[] = {{reinterpret_cast<void*>(4096), dtype_of<A>(), 3, {B_, M, K}, {M * K, K, 1}}, {reinterpret_cast<void*>(4096), dtype_of<B>(), 3, {B_, K, N}, {K * N, N, 1}},
                               {reinterpret_cast<void*>(4096), dtype_of<C>(), 3, {B_, M, N}, {M * N, N, 1}}};
    const Attribute attributes[] = {{0}, {rounds}};
    EXPECT(products.plan({operands, 3, attributes, 2, 0, 1}) != nullptr);
  } catch (const Failure& failure) {
    why = failure.what();
  }
  unsetenv("TITAN_CUDA_PRODUCTS");
  EXPECT(host::left() == 0);
  return why;
}

void what_it_does_not_take_is_left_to_our_kernel_or_refused_if_asked_for() {
  const auto says = [](const std::string& why, const char* part) {
    const bool found = why.find(part) != std::string::npos && why.find("; expected: one that it takes") != std::string::npos;
    if (!found) std::printf("the refusal is \"%s\", expected \"%s\"\n", why.c_str(), part);
    return found;
  };
  EXPECT((refusal<float, float, float>(1, 4, 4, 4, false).empty()));
  EXPECT(says(refusal<float, float, float>(1, 4, 4, 0, false), "sums over none"));
  EXPECT(says(refusal<float, float, float>(0, 4, 4, 4, false), "it has no elements"));
  EXPECT(says(refusal<float, float, float>(1, 4, 4, 4, true), "have yet to be rounded to bf16"));
  EXPECT(says(refusal<bf16, float, float>(1, 4, 4, 4, true), "of two types"));
  EXPECT(says(refusal<f8e4m3, bf16, float>(1, 16, 16, 16, true), "of two types"));
  EXPECT(says(refusal<f8e4m3, f8e4m3, float>(1, 16, 16, 16, true), "contiguous in both"));
  Array<float> a({1, 4, 4}), b({1, 4, 4}), c({1, 4, 4});
  EXPECT(Products::name() == "cuBLASLt 13.0");
  setenv("TITAN_CUDA_PRODUCTS", "own", 1);
  EXPECT(!multiply(a, b, c, 0, false) && Products::name() == "libtitan's own");
  setenv("TITAN_CUDA_PRODUCTS", "fast", 1);
  std::string why;
  try {
    multiply(a, b, c, 0, false);
  } catch (const Failure& failure) {
    why = failure.what();
  }
  EXPECT(why == "TITAN_CUDA_PRODUCTS is fast; expected: auto, own or cublaslt");
  unsetenv("TITAN_CUDA_PRODUCTS");
}

/// 1 + 2^-9 has a mantissa of 9 bits, 1 + 2^-11 one of 11.
void f32_is_rounded_to_tf32_where_the_call_says_so() {
  host::play({});
  for (const int64_t rounds : {0, 2}) {
    Array<float> a({1, 1, 2}), b({1, 2, 1}), c({1, 1, 1});
    a.fill([](int64_t k) { return k ? 1 + 0x1p-11 : 1 + 0x1p-9; });
    b.fill([](int64_t) { return 1; });
    EXPECT(multiply(a, b, c, 0, rounds) && double(c[0]) == 2 + 0x1p-9 + (rounds ? 0 : 0x1p-11));
  }
  Array<double> a({1, 4, 4}), b({1, 4, 4}), c({1, 4, 4});
  a.random(1), b.random(2);
  EXPECT(multiply(a, b, c, 0, 2) && is_product(a, b, c, 0));
}

void sums_of_parts_stay_wide_and_two_runs_are_the_same() {
  host::play({});
  // In bf16, 256 + 1 is 256.
  Array<bf16> a({1, 1, 512}), b({1, 512, 1}, {512, 1, 1}), c({1, 1, 1}), again({1, 1, 1});
  a.fill([](int64_t) { return 1; });
  b.fill([](int64_t k) { return k < 256 ? 1 : k == 256 ? 3 : k == 257 ? -256 : 0; });
  EXPECT(multiply(a, b, c, 0, true) && double(c[0]) == 3);
  EXPECT(multiply(a, b, again, 0, true) && again == c);
}

void whichever_call_fails_one_error_tells_it_and_nothing_is_left() {
  Array<double> a({2, 3, 4}), b({2, 4, 5}), c({2, 3, 5});
  host::play({});
  EXPECT(multiply(a, b, c, 0, false));
  const int64_t calls = host::played().calls;
  EXPECT(calls > 30);
  for (int64_t n = 0; n < calls; n++) {
    host::play({.fails = n});
    std::string why;
    try {
      multiply(a, b, c, 0, false);
    } catch (const Failure& failure) {
      why = failure.what();
    }
    const std::string call = host::played().last_call;
    const bool gives_back = call.find("Destroy") != std::string::npos || call.find("cudaFree") != std::string::npos;
    EXPECT(why.empty() == gives_back && (why.empty() || why.rfind("the GPU failed in ", 0) == 0));
    EXPECT(host::left() == 0);
  }
}

// The played library itself.

/// A product of two 16 x 16 matrices, one after another in memory, with a third behind them for the result; each case changes what it is about.
struct Raw {
  static constexpr int64_t SIDE = 16;
  cudaDataType types[3] = {CUDA_R_32F, CUDA_R_32F, CUDA_R_32F}, scale = CUDA_R_32F;
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  int64_t rows[3] = {SIDE, SIDE, SIDE}, ld[3] = {SIDE, SIDE, SIDE}, stride[3] = {0, 0, 0};
  int32_t batch[3] = {1, 1, 1};
  cublasOperation_t operations[2] = {CUBLAS_OP_N, CUBLAS_OP_N};
  uint32_t alignment = 16, schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  uint64_t allowed = 1 << 16;
  size_t given = 1 << 16, workspace_offset = 0, c_offset = 0;
  float beta = 0;
  bool writes_c = false, chooses = true, another = false, after_destroy = false;
  cublasStatus_t heuristic = CUBLAS_STATUS_SUCCESS, product = CUBLAS_STATUS_SUCCESS;
  std::string why;
  float result = 0;

  void run(bool on_two_streams = false, bool captured = false) {
    host::play({});
    constexpr size_t BYTES = SIDE * SIDE * 8;
    const Stream stream = make_stream(), other = make_stream();
    const DeviceMemory memory = make_device_memory(3 * BYTES), workspace = make_device_memory(1 << 17);
    char* const base = static_cast<char*>(memory.get());
    const std::vector<float> ones(BYTES / 4 * 3, 1);
    TITAN_CUDA_CHECK(cudaMemcpyAsync(base, ones.data(), (writes_c ? 3 : 2) * BYTES, cudaMemcpyHostToDevice, stream.get()));
    TITAN_CUDA_CHECK(cudaStreamSynchronize(stream.get()));
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t description;
    cublasLtMatmulPreference_t preference;
    cublasLtMatrixLayout_t layouts[3];
    cublasLtCreate(&handle);
    cublasLtMatmulDescCreate(&description, compute, scale);
    cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSA, &operations[0], sizeof(cublasOperation_t));
    cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSB, &operations[1], sizeof(cublasOperation_t));
    for (int i = 0; i < 3; i++) {
      cublasLtMatrixLayoutCreate(&layouts[i], types[i], uint64_t(rows[i]), SIDE, ld[i]);
      cublasLtMatrixLayoutSetAttribute(layouts[i], CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch[i], sizeof batch[i]);
      cublasLtMatrixLayoutSetAttribute(layouts[i], CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride[i], sizeof stride[i]);
    }
    cublasLtMatmulPreferenceCreate(&preference);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &allowed, sizeof allowed);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes);
    for (int i = 0; i < 4; i++) cublasLtMatmulPreferenceSetAttribute(preference, cublasLtMatmulPreferenceAttributes_t(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES + i), &alignment, sizeof alignment);
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    heuristic = cublasLtMatmulAlgoGetHeuristic(handle, description, layouts[0], layouts[1], layouts[2], layouts[2], preference, 1, &found, &count);
    if (heuristic != CUBLAS_STATUS_SUCCESS) why = cublasLtGetStatusString(heuristic);
    EXPECT((count == 1) == (heuristic == CUBLAS_STATUS_SUCCESS));
    cublasLtMatmulPreferenceDestroy(preference);
    if (another) cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSA, &(operations[0] = CUBLAS_OP_T), sizeof(cublasOperation_t));
    if (after_destroy) cublasLtMatrixLayoutDestroy(layouts[1]);
    const float one = 1;
    const double wide_one = 1, wide_beta = double(beta);
    const bool wide = scale == CUDA_R_64F;
    char* const c = base + 2 * BYTES + c_offset;
    const auto multiply_on = [&](const Stream& on) {
      product = cublasLtMatmul(handle, description, wide ? static_cast<const void*>(&wide_one) : &one, base, layouts[0], base + BYTES, layouts[1], wide ? static_cast<const void*>(&wide_beta) : &beta, c, layouts[2], c,
                               layouts[2], chooses ? &found.algo : nullptr, static_cast<char*>(workspace.get()) + workspace_offset, given, on.get());
      if (product != CUBLAS_STATUS_SUCCESS) why = cublasLtGetStatusString(product);
    };
    Graph graph;
    GraphExec exec;
    if (heuristic == CUBLAS_STATUS_SUCCESS) {
      if (captured) cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal);
      multiply_on(stream);
      if (captured) {
        TITAN_CUDA_CHECK(cudaStreamEndCapture(stream.get(), graph.slot()));
        TITAN_CUDA_CHECK(cudaGraphInstantiate(exec.slot(), graph.get(), 0));
        TITAN_CUDA_CHECK(cudaGraphLaunch(exec.get(), stream.get()));
      }
      if (on_two_streams) multiply_on(other);
    }
    if (heuristic == CUBLAS_STATUS_SUCCESS && product == CUBLAS_STATUS_SUCCESS) (void)cudaMemcpyAsync(&result, c, sizeof result, cudaMemcpyDeviceToHost, stream.get());
    (void)cudaStreamSynchronize(stream.get());
    if (const std::string problem = host::played().problem; !problem.empty()) why = problem;
    for (int i = 0; i < 3; i++)
      if (i != 1 || !after_destroy) cublasLtMatrixLayoutDestroy(layouts[i]);
    cublasLtMatmulDescDestroy(description);
    cublasLtDestroy(handle);
  }
};

/// Is a product of this kind refused, by this call, for this reason?
bool refused(cublasStatus_t heuristic, cublasStatus_t product, const char* part, const std::function<void(Raw&)>& change, bool on_two_streams = false) {
  Raw raw;
  change(raw);
  raw.run(on_two_streams);
  const bool right = raw.heuristic == heuristic && raw.product == product && raw.why.find(part) != std::string::npos;
  if (!right) std::printf("heuristic %d, product %d, \"%s\"; expected %d, %d, \"%s\"\n", raw.heuristic, raw.product, raw.why.c_str(), heuristic, product, part);
  EXPECT(host::left() == 0);
  return right;
}

void a_right_call_is_taken_in_a_stream_and_in_a_graph() {
  Raw raw;
  raw.run();
  EXPECT(raw.why.empty() && raw.result == Raw::SIDE);
  Raw adds;
  adds.beta = 1, adds.writes_c = true;
  adds.run();
  EXPECT(adds.why.empty() && adds.result == Raw::SIDE + 1);
  Raw captured;
  captured.run(false, true);
  EXPECT(captured.why.empty() && captured.result == Raw::SIDE);
}

void what_the_documents_forbid_is_refused() {
  constexpr auto OK = CUBLAS_STATUS_SUCCESS, INVALID = CUBLAS_STATUS_INVALID_VALUE, UNSUPPORTED = CUBLAS_STATUS_NOT_SUPPORTED;
  EXPECT(refused(INVALID, OK, "A has a leading dimension of 15, less than its 16 rows", [](Raw& it) { it.ld[0] = 15; }));
  EXPECT(refused(INVALID, OK, "C has a leading dimension of 8, less than its 16 rows", [](Raw& it) { it.ld[2] = 8; }));
  EXPECT(refused(INVALID, OK, "B has 0 rows", [](Raw& it) { it.rows[1] = 0; }));
  EXPECT(refused(INVALID, OK, "A gives 16 rows and sums over 16, B sums over 12", [](Raw& it) { it.rows[1] = 12; }));
  EXPECT(refused(INVALID, OK, "B has a batch of 1, and D of 2", [](Raw& it) { it.batch[0] = it.batch[2] = 2, it.stride[2] = 256; }));
  EXPECT(refused(INVALID, OK, "matrices of D overlap: they are 8 apart", [](Raw& it) { it.batch[0] = it.batch[1] = it.batch[2] = 2, it.stride[2] = 8; }));
  EXPECT(refused(UNSUPPORTED, OK, "do not go together", [](Raw& it) { it.types[1] = CUDA_R_16BF; }));
  EXPECT(refused(UNSUPPORTED, OK, "do not go together", [](Raw& it) { it.types[2] = CUDA_R_16BF; }));
  EXPECT(refused(UNSUPPORTED, OK, "do not go together", [](Raw& it) { it.compute = CUBLAS_COMPUTE_64F; }));
  EXPECT(refused(UNSUPPORTED, OK, "do not go together", [](Raw& it) { it.types[0] = it.types[1] = CUDA_R_8F_E5M2, it.operations[0] = CUBLAS_OP_T; }));
  EXPECT(refused(UNSUPPORTED, OK, "float8 takes A transposed and B not", [](Raw& it) { it.types[0] = it.types[1] = CUDA_R_8F_E4M3; }));
  EXPECT(refused(UNSUPPORTED, OK, "multiples of 16 bytes", [](Raw& it) { it.types[0] = it.types[1] = CUDA_R_8F_E4M3, it.operations[0] = CUBLAS_OP_T, it.ld[0] = 24; }));
  EXPECT(refused(UNSUPPORTED, OK, "no algorithm takes A at multiples of 2 bytes", [](Raw& it) { it.alignment = 2; }));
  EXPECT(refused(OK, CUBLAS_STATUS_EXECUTION_FAILED, "a product's C is not at a multiple of 16 bytes", [](Raw& it) { it.c_offset = 8; }));
  EXPECT(refused(OK, INVALID, "needs a workspace of 2048 bytes, and has 1024", [](Raw& it) { it.given = 1024; }));
  EXPECT(refused(OK, INVALID, "the workspace is not at a multiple of 16 bytes", [](Raw& it) { it.workspace_offset = 8; }));
  EXPECT(refused(OK, INVALID, "no algorithm is given", [](Raw& it) { it.chooses = false; }));
  EXPECT(refused(OK, INVALID, "the algorithm was chosen for another product", [](Raw& it) { it.another = true; }));
  EXPECT(refused(OK, INVALID, "cuBLASLt is given a handle or descriptor that is not there", [](Raw& it) { it.after_destroy = true; }));
}

void what_a_gpu_leaves_to_chance_is_noticed() {
  constexpr auto OK = CUBLAS_STATUS_SUCCESS;
  // A batch whose second matrix lies behind the memory; an output that nobody has written, and is added to; one workspace for two streams.
  EXPECT(refused(OK, OK, "a product is given memory that was never allocated", [](Raw& it) { it.batch[0] = it.batch[1] = it.batch[2] = 2, it.stride[0] = 256 * 8, it.stride[2] = 256; }));
  EXPECT(refused(OK, OK, "a product is given memory that was never allocated", [](Raw& it) { it.ld[2] = 64; }));
  EXPECT(refused(OK, OK, "a product reads memory that nobody has written", [](Raw& it) { it.beta = 1; }));
  EXPECT(refused(OK, CUBLAS_STATUS_EXECUTION_FAILED, "a product writes what a product writes on another stream, and nothing orders them", [](Raw&) {}, true));
}

}  // namespace

int main() {
  products_of_all_shapes_and_strides_are_what_they_mean<float, float, float>(false);
  products_of_all_shapes_and_strides_are_what_they_mean<double, double, double>(false);
  products_of_all_shapes_and_strides_are_what_they_mean<bf16, bf16, bf16>(true);
  products_of_all_shapes_and_strides_are_what_they_mean<bf16, bf16, float>(true);
  a_batch_may_lie_between_rows();
  float8_is_multiplied_where_gpus_multiply_it();
  what_it_does_not_take_is_left_to_our_kernel_or_refused_if_asked_for();
  f32_is_rounded_to_tf32_where_the_call_says_so();
  sums_of_parts_stay_wide_and_two_runs_are_the_same();
  whichever_call_fails_one_error_tells_it_and_nothing_is_left();
  a_right_call_is_taken_in_a_stream_and_in_a_graph();
  what_the_documents_forbid_is_refused();
  what_a_gpu_leaves_to_chance_is_noticed();
  return finish("cuda_products");
}
