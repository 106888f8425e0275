// The types of elements (element_types.def): their numbers, sizes, names and kinds. Inlined everywhere, as code of every processor level uses it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace titan {

enum class DType : uint32_t {
#define ELEMENT_TYPE(name, bits, kind) name,
#include "element_types.def"
};

enum class ElementKind { real, integer, stored_real, stored_integer, bytes };

constexpr uint32_t NUM_DTYPES = 0
#define ELEMENT_TYPE(name, bits, kind) +1
#include "element_types.def"
    ;

/// Bytes of an element; 0 of a type that there is not.
__attribute__((always_inline)) constexpr size_t size_of(DType dtype) {
  switch (dtype) {
#define ELEMENT_TYPE(name, bits, kind) case DType::name: return bits / 8;
#include "element_types.def"
  }
  return 0;
}

__attribute__((always_inline)) constexpr const char* name_of(DType dtype) {
  switch (dtype) {
#define ELEMENT_TYPE(name, bits, kind) case DType::name: return #name;
#include "element_types.def"
  }
  return "an unknown type";
}

__attribute__((always_inline)) constexpr ElementKind kind_of(DType dtype) {
  switch (dtype) {
#define ELEMENT_TYPE(name, bits, kind) case DType::name: return ElementKind::kind;
#include "element_types.def"
  }
  return ElementKind::bytes;
}

}  // namespace titan
