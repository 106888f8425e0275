// SHA-256 (FIPS 180-4) of messages of one length, up to four side by side: the processor's instructions for it wait for each other, and
// those of other messages fill the gaps.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

namespace titan {

class Sha256 {
 public:
  static constexpr int MOST_LANES = 4;
  static constexpr size_t BLOCK = 64;  // bytes
  using Hash = std::array<uint8_t, 32>;

  /// Has this processor instructions for it?
  static bool has_instructions();
  /// For so many messages side by side, from 1 to MOST_LANES.
  explicit Sha256(int lanes, bool by_instructions = has_instructions());
  /// Goes on with n bytes of each message, a multiple of BLOCK.
  void add(const uint8_t* const* data, size_t n);
  /// The hash of a message that ends with n bytes more, fewer than BLOCK.
  Hash end(int lane, const uint8_t* data, size_t n) const;

 private:
  using State = std::array<uint32_t, 8>;
  void compress(State* states, const uint8_t* const* data, int lanes, size_t blocks) const;
  const int lanes_;
  const bool by_instructions_;
  uint64_t bytes_ = 0;  // of each message
  State states_[MOST_LANES];
};

}  // namespace titan
