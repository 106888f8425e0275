// NVIDIA's own cuBLASLt takes the descriptors, layouts and preferences that products make, for which it needs no GPU. It is asked for an algorithm last, and
// says that it has no GPU: whatever it had against an attribute, its size or its value, would be told before.
#include <cstdio>

#include "../cuda/products.cpp"

using namespace titan;
using namespace titan::cuda;

namespace {

/// What the library says of a product of [batch, 64, 32] and [batch, 32, 48], stored by rows or by columns.
std::string said_of(DType a, DType b, DType c, bool rounds_to_tf32, int64_t batch, bool a_by_columns, bool b_by_columns) {
  void* const memory = reinterpret_cast<void*>(uintptr_t{4096});
  Tensor operands[] = {{memory, a, 3, {batch, 64, 32}, {64 * 32, 32, 1}}, {memory, b, 3, {batch, 32, 48}, {32 * 48, 48, 1}}, {memory, c, 3, {batch, 64, 48}, {64 * 48, 48, 1}}};
  if (a_by_columns) operands[0].strides[1] = 1, operands[0].strides[2] = 64;
  if (b_by_columns) operands[1].strides[1] = 1, operands[1].strides[2] = 32;
  const Attribute attributes[] = {{0}, {c != DType::f64 && a != DType::f32}};
  const Call call = {operands, 3, attributes, 2, 0, 1};
  try {
    Product product(nullptr, nullptr);
    return product.choose(Matrix(call, 1).transposed(), Matrix(call, 0).transposed(), Matrix(call, 2).transposed(), static_cast<int32_t>(batch), rounds_to_tf32);
  } catch (const Failure& failure) {
    return failure.what();
  }
}

}  // namespace

int main() {
  int cases = 0, refused = 0;
  struct Types {
    DType a, b, c;
    bool rounds_to_tf32;
  };
  constexpr auto f32 = DType::f32, f64 = DType::f64, half = DType::bf16;
  for (const auto& [a, b, c, tf32] : {Types{f32, f32, f32, false}, {f32, f32, f32, true}, {f64, f64, f64, false}, {half, half, half, false}, {half, half, f32, false}, {DType::f8e4m3, DType::f8e5m2, half, false}})
    for (const int64_t batch : {1, 3})
      for (const bool a_by_columns : {false, true})
        for (const bool b_by_columns : {false, true}) {
          const std::string said = said_of(a, b, c, tf32, batch, a_by_columns, b_by_columns);
          cases++;
          if (said.find("cublasLtMatmulAlgoGetHeuristic") != std::string::npos && said.find("CUBLAS_STATUS_NOT_INITIALIZED") != std::string::npos) continue;
          refused++;
          std::printf("refused: %s\n", said.c_str());
        }
  std::printf("%s takes the descriptors of %d of %d products\n", Products::name().c_str(), cases - refused, cases);
  return refused ? 1 : 0;
}
