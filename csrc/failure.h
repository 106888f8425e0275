// How libtitan's own code reports an error on its way to the C border.
#pragma once
#include <cstdint>
#include <exception>
#include <string>

#include "titan.h"

namespace titan {

struct Failure : std::exception {
  titan_status status;
  std::string message;  // what happened; expected: ...; fix: ...
  int32_t section = -1;
  int64_t instruction = -1;
  std::string kernel, scope;

  Failure(titan_status status, std::string message) : status(status), message(std::move(message)) {}
  const char* what() const noexcept override { return message.c_str(); }
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
