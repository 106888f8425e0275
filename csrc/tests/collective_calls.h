// What tests of collectives have in common: numbers for each rank, tensors and calls.
#pragma once
#include <random>
#include <vector>

#include "../comm/module.h"
#include "test.h"

namespace titan::test {

/// Other numbers for each rank.
template <class T> std::vector<T> values(size_t n, int rank) {
  std::vector<T> list;
  std::mt19937 engine(static_cast<unsigned>(rank + 1));
  std::uniform_real_distribution<double> number(-100, 100);
  for (size_t i = 0; i < n; i++) list.push_back(T(static_cast<float>(number(engine))));
  return list;
}

inline titan_comm_tensor pieces(const void* in, void* out, uint64_t outer, uint64_t chunk) { return {in, out, outer, chunk, 0, 0, 0, 0, 0, 0}; }

template <class T> titan_comm_call call_of(titan_comm_kind kind, const titan_comm_tensor* tensors, uint32_t num_tensors = 1, uint32_t by = 0) {
  return {kind, static_cast<uint32_t>(dtype_of<T>()), by, num_tensors, tensors};
}
/// Of a list that stays as long as the call.
template <class T> titan_comm_call call_of(titan_comm_kind kind, const std::vector<titan_comm_tensor>& tensors, uint32_t by = 0) {
  return call_of<T>(kind, tensors.data(), static_cast<uint32_t>(tensors.size()), by);
}

}  // namespace titan::test
