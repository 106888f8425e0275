#include "sha256.h"

#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace titan {
namespace {

alignas(16) constexpr uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t big_endian(const uint8_t* p) { return uint32_t(p[0]) << 24 | uint32_t(p[1]) << 16 | uint32_t(p[2]) << 8 | p[3]; }

void compress_portable(uint32_t* state, const uint8_t* data, size_t blocks) {
  for (; blocks--; data += Sha256::BLOCK) {
    uint32_t w[64];
    for (int i = 0; i < 16; i++) w[i] = big_endian(data + 4 * i);
    for (int i = 16; i < 64; i++) {
      const uint32_t low = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
      w[i] = w[i - 16] + low + w[i - 7] + (std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ w[i - 2] >> 10);
    }
    uint32_t v[8];
    std::memcpy(v, state, sizeof v);
    for (int i = 0; i < 64; i++) {
      const uint32_t sum1 = std::rotr(v[4], 6) ^ std::rotr(v[4], 11) ^ std::rotr(v[4], 25), choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
      const uint32_t sum0 = std::rotr(v[0], 2) ^ std::rotr(v[0], 13) ^ std::rotr(v[0], 22), majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
      const uint32_t first = v[7] + sum1 + choice + K[i] + w[i];
      std::memmove(v + 1, v, 7 * sizeof *v);
      v[4] += first;
      v[0] = first + sum0 + majority;
    }
    for (int i = 0; i < 8; i++) state[i] += v[i];
  }
}

#if defined(__x86_64__)

/// In the order that the instructions want, a state is two registers: f e b a, and h g d c.
template <int lanes> __attribute__((target("sha,sse4.1"))) void compress_x86(uint32_t* const* states, const uint8_t* const* data, size_t blocks) {
  const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  __m128i abef[lanes], cdgh[lanes];
  for (int l = 0; l < lanes; l++) {
    const __m128i dcba = _mm_loadu_si128(reinterpret_cast<const __m128i*>(states[l])), hgfe = _mm_loadu_si128(reinterpret_cast<const __m128i*>(states[l] + 4));
    const __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1), efgh = _mm_shuffle_epi32(hgfe, 0x1b);
    abef[l] = _mm_alignr_epi8(cdab, efgh, 8);
    cdgh[l] = _mm_blend_epi16(efgh, cdab, 0xf0);
  }
  for (size_t block = 0; block < blocks; block++) {
    __m128i w[lanes][4], abef_before[lanes], cdgh_before[lanes];
    for (int l = 0; l < lanes; l++) {
      abef_before[l] = abef[l];
      cdgh_before[l] = cdgh[l];
      const auto* words = reinterpret_cast<const __m128i*>(data[l] + block * Sha256::BLOCK);
      for (int i = 0; i < 4; i++) w[l][i] = _mm_shuffle_epi8(_mm_loadu_si128(words + i), swap);
    }
#pragma GCC unroll 16
    for (int r = 0; r < 16; r++) {
      const __m128i k = _mm_load_si128(reinterpret_cast<const __m128i*>(K) + r);
      for (int l = 0; l < lanes; l++) {
        __m128i& x = w[l][r % 4];
        if (r >= 4) {
          const __m128i seven_before = _mm_alignr_epi8(w[l][(r + 3) % 4], w[l][(r + 2) % 4], 4);
          x = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(x, w[l][(r + 1) % 4]), seven_before), w[l][(r + 3) % 4]);
        }
        const __m128i sum = _mm_add_epi32(x, k);
        cdgh[l] = _mm_sha256rnds2_epu32(cdgh[l], abef[l], sum);
        abef[l] = _mm_sha256rnds2_epu32(abef[l], cdgh[l], _mm_shuffle_epi32(sum, 0x0e));
      }
    }
    for (int l = 0; l < lanes; l++) {
      abef[l] = _mm_add_epi32(abef[l], abef_before[l]);
      cdgh[l] = _mm_add_epi32(cdgh[l], cdgh_before[l]);
    }
  }
  for (int l = 0; l < lanes; l++) {
    const __m128i feba = _mm_shuffle_epi32(abef[l], 0x1b), dchg = _mm_shuffle_epi32(cdgh[l], 0xb1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(states[l]), _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(states[l] + 4), _mm_alignr_epi8(dchg, feba, 8));
  }
}

#endif

}  // namespace

bool Sha256::has_instructions() {
#if defined(__x86_64__)
  static const bool has = [] {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1);  // processors that have SHA have SSE4.1
  }();
  return has;
#else
  return false;
#endif
}

Sha256::Sha256(int lanes, bool by_instructions) : lanes_(lanes), by_instructions_(by_instructions) {
  for (State& state : states_) state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
}

void Sha256::compress(State* states, const uint8_t* const* data, int lanes, size_t blocks) const {
#if defined(__x86_64__)
  if (by_instructions_) {
    uint32_t* each[MOST_LANES];
    for (int l = 0; l < lanes; l++) each[l] = states[l].data();
    constexpr decltype(&compress_x86<1>) by_lanes[MOST_LANES] = {compress_x86<1>, compress_x86<2>, compress_x86<3>, compress_x86<4>};
    return by_lanes[lanes - 1](each, data, blocks);
  }
#endif
  for (int l = 0; l < lanes; l++) compress_portable(states[l].data(), data[l], blocks);
}

void Sha256::add(const uint8_t* const* data, size_t n) {
  compress(states_, data, lanes_, n / BLOCK);
  bytes_ += n;
}

Sha256::Hash Sha256::end(int lane, const uint8_t* data, size_t n) const {
  uint8_t last[2 * BLOCK] = {};
  const size_t blocks = n + 9 > BLOCK ? 2 : 1;  // a bit, and the length in 8 bytes, have to follow
  std::memcpy(last, data, n);
  last[n] = 0x80;
  const uint64_t bits = (bytes_ + n) * 8;
  for (int i = 0; i < 8; i++) last[blocks * BLOCK - 1 - i] = uint8_t(bits >> 8 * i);
  State state = states_[lane];
  const uint8_t* const one[] = {last};
  compress(&state, one, 1, blocks);
  Hash hash;
  for (int i = 0; i < 32; i++) hash[i] = uint8_t(state[i / 4] >> (24 - i % 4 * 8));
  return hash;
}

}  // namespace titan
