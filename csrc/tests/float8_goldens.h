// Made by tools/make_float8_goldens.py, of PyTorch 2.13.0: hashes of its casts to float8.
#pragma once
#include <cstdint>

struct Float8Golden {
  uint64_t all_bf16, some_f32;
};
constexpr Float8Golden E4M3 = {0xcc7cec3700706375, 0xc140e2468aea9aab};
constexpr Float8Golden E5M2 = {0x3ec17a67304ee9b5, 0xb3b79c5c53ea7de2};
