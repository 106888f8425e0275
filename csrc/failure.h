// How libtitan's own code reports an error on its way to the C border.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>

#include "titan.h"

namespace titan {

/// Copies a text into an array, cut to what it has room for, and fills the rest with zeros.
template <size_t size> void copy_text(char (&to)[size], std::string_view from) noexcept {
  const size_t length = std::min(from.size(), size - 1);
  std::memcpy(to, from.data(), length);
  std::memset(to + length, 0, size - length);
}

/// It owns no memory: it also has to tell that memory has run out.
struct Failure : std::exception {
  titan_error error = {};

  /// `message` says what happened; expected: ...; fix: ...
  Failure(titan_status status, std::string_view message) noexcept {
    error.status = status;
    error.section = -1;
    error.instruction = -1;
    copy_text(error.message, message);
  }
  /// The exception that a catch block has caught, whatever it is. One that does not say where it comes from comes from this kernel.
  static Failure caught(const char* kernel = nullptr, const char* scope = "") noexcept;
  /// Says where it happened, unless that is known.
  Failure& at(int32_t section, int64_t instruction, std::string_view kernel, std::string_view scope) noexcept {
    if (error.section < 0) error.section = section;
    if (error.instruction >= 0) return *this;
    error.instruction = instruction;
    copy_text(error.kernel, kernel);
    copy_text(error.scope, scope);
    return *this;
  }
  titan_status status() const noexcept { return static_cast<titan_status>(error.status); }
  const char* what() const noexcept override { return error.message; }
};

/// "a", 1, "b" -> "a1b".
template <class... Parts> std::string text(const Parts&... parts) {
  std::string out;
  auto add = [&](const auto& part) {
    if constexpr (std::is_arithmetic_v<std::decay_t<decltype(part)>>) out += std::to_string(part);
    else out += part;
  };
  (add(parts), ...);
  return out;
}

}  // namespace titan
