// The processor's tiles (AMX): eight registers of 16 rows of 64 bytes. A left operand holds 16 rows of 32 bf16 that follow each other in K; a right
// one 16 rows of 16 pairs, row i the elements 2i and 2i + 1 in K of 16 columns; a sum holds 16 rows of 16 f32. One instruction multiplies all of a
// left with all of a right operand: 16384 FLOPs in 16 cycles, sixteen times the rate of vectors. It takes bf16 numbers and sums below 2^-126 for 0.
#pragma once
#include "simd.h"

#if defined(__AMX_BF16__)
namespace titan::cpu::inline TITAN_LEVEL {

constexpr int TILE_ROWS = 16, TILE_DEPTH = 32;          // rows or columns, and elements of K, of an operand
constexpr int64_t TILE_ROW_BYTES = 64, TILE_BYTES = TILE_ROWS * TILE_ROW_BYTES;

/// While it lives, this thread's tiles can be used. Without any in use, the system has 8 KB less to save when it switches threads.
class Tiles {
 public:
  TITAN_INLINE Tiles() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } shape;
    for (int i = 0; i < 8; i++) shape.row_bytes[i] = TILE_ROW_BYTES, shape.rows[i] = TILE_ROWS;
    asm volatile("ldtilecfg %0" ::"m"(shape));
  }
  TITAN_INLINE ~Tiles() { asm volatile("tilerelease"); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

// The compiler knows nothing of tiles: these keep their order among each other, and with memory where they say so.

template <int tile> TITAN_INLINE void tile_zero() { asm volatile("tilezero %%tmm%c0" ::"i"(tile)); }
/// From or to rows that lie `stride` bytes apart.
template <int tile> TITAN_INLINE void tile_load(const void* from, int64_t stride) { asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(tile) : "memory"); }
template <int tile> TITAN_INLINE void tile_store(void* to, int64_t stride) { asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(tile) : "memory"); }
/// sum += left right
template <int sum, int left, int right> TITAN_INLINE void tile_multiply_add() { asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(left), "i"(right)); }

/// Left operands of R tiles below each other, or right ones of C beside each other: bytes from tile to tile, from one TILE_DEPTH to the next, and
/// from row to row within a tile.
struct TileOperand {
  const void* data;
  int64_t next, deeper, row;
  TITAN_INLINE const char* at(int64_t tile, int64_t depth) const { return static_cast<const char*>(data) + tile * next + depth * deeper; }
};

/// The tiles 0..R*C-1, rows first, += left right over `depths` times TILE_DEPTH of K. R and C are 1 or 2.
template <int R, int C> TITAN_INLINE void multiply_add_tiles(const TileOperand& left, const TileOperand& right, int64_t depths) {
#pragma GCC unroll 1
  for (int64_t k = 0; k < depths; k++) {
    tile_load<6>(right.at(0, k), right.row);
    tile_load<4>(left.at(0, k), left.row);
    tile_multiply_add<0, 4, 6>();
    if constexpr (C == 2) {
      tile_load<7>(right.at(1, k), right.row);
      tile_multiply_add<1, 4, 7>();
    }
    if constexpr (R == 2) {
      tile_load<5>(left.at(1, k), left.row);
      tile_multiply_add<C, 5, 6>();
      if constexpr (C == 2) tile_multiply_add<3, 5, 7>();
    }
  }
}

/// f(sum, row, column) for each of R x C tiles; `sum` is the number of its register, as a constant.
template <int R, int C, class F> TITAN_INLINE void each_tile(F f) {
  f(std::integral_constant<int, 0>(), 0, 0);
  if constexpr (C == 2) f(std::integral_constant<int, 1>(), 0, 1);
  if constexpr (R == 2) f(std::integral_constant<int, C>(), 1, 0);
  if constexpr (R == 2 && C == 2) f(std::integral_constant<int, 3>(), 1, 1);
}

/// c = left right, or added to it: `rows` x `columns` tiles of f32, rows of c `stride` apart.
TITAN_INLINE void multiply_tiles(const TileOperand& left, const TileOperand& right, int64_t depths, float* c, int64_t stride, int64_t rows, int64_t columns, bool adds) {
  const auto block = [&]<int R, int C>(std::integral_constant<int, R>, std::integral_constant<int, C>, int64_t row, int64_t column) {
    float* const to = c + row * TILE_ROWS * stride + column * TILE_ROWS;
    each_tile<R, C>([&](auto sum, int i, int j) {
      if (adds) tile_load<sum>(to + i * TILE_ROWS * stride + j * TILE_ROWS, stride * 4);
      else tile_zero<sum>();
    });
    multiply_add_tiles<R, C>({left.at(row, 0), left.next, left.deeper, left.row}, {right.at(column, 0), right.next, right.deeper, right.row}, depths);
    each_tile<R, C>([&](auto sum, int i, int j) { tile_store<sum>(to + i * TILE_ROWS * stride + j * TILE_ROWS, stride * 4); });
  };
  constexpr std::integral_constant<int, 1> one;
  constexpr std::integral_constant<int, 2> two;
  for (int64_t row = 0; row < rows; row += 2)
    for (int64_t column = 0; column < columns; column += 2) {
      if (row + 1 < rows) column + 1 < columns ? block(two, two, row, column) : block(two, one, row, column);
      else column + 1 < columns ? block(one, two, row, column) : block(one, one, row, column);
    }
}

}  // namespace titan::cpu::inline TITAN_LEVEL
#endif
