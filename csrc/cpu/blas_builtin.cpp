// The built-in matrix product. C is cut into one rectangle per thread; threads share nothing, so the result depends on shape and
// thread count alone. In its rectangle a thread packs a block of B (DEPTH x WIDTH, in L2) into panels of two vectors' width and,
// for a few row tiles at a time, A; then register tiles of up to ROWS x two vectors run down the depth.
#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <utility>

#include "blas.h"
#include "simd.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

constexpr int ROWS = MANY_REGISTERS ? 14 : 6;  // 28 (12) registers of sums, out of 32 (16)
constexpr int TILES = 8;                       // row tiles of A that are packed together
constexpr int64_t DEPTH = 384;
template <class real> constexpr int PANEL = 2 * LANES<real>;
template <class real> constexpr int64_t WIDTH = 4096 / sizeof(real);  // a multiple of PANEL; a packed block of B is 1.5 MB

/// Packed blocks of one thread, allocated when it first multiplies and kept.
template <class real> struct Packed {
  static constexpr int64_t A = TILES * ROWS * DEPTH, B = DEPTH * WIDTH<real>;
  std::unique_ptr<real, decltype(&std::free)> memory{static_cast<real*>(std::aligned_alloc(64, (A + B) * sizeof(real))), &std::free};
  real* a() const { return memory.get() + B; }
  real* b() const { return memory.get(); }
};

/// c[R, columns] (+)= a[depth, R]^T b[depth, PANEL]
template <class real, int R> void multiply_tile(const real* a, const real* b, int64_t depth, real* c, int64_t c_m, int64_t columns, bool adds) {
  constexpr int L = LANES<real>;
  vec<real> sums[R][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) sums[r][0] = sums[r][1] = vec<real>{};
#pragma GCC unroll 1
  for (int64_t k = 0; k < depth; k++, a += R, b += 2 * L) {
    const vec<real> left = load(b), right = load(b + L);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const vec<real> scale = splat(a[r]);
      sums[r][0] += scale * left;
      sums[r][1] += scale * right;
    }
  }
  if (columns == PANEL<real>) {
#pragma GCC unroll 16
    for (int r = 0; r < R; r++, c += c_m) {
      store(c, adds ? load(c) + sums[r][0] : sums[r][0]);
      store(c + L, adds ? load(c + L) + sums[r][1] : sums[r][1]);
    }
  } else {
#pragma GCC unroll 16
    for (int r = 0; r < R; r++, c += c_m) {
      real row[PANEL<real>];
      store(row, sums[r][0]);
      store(row + L, sums[r][1]);
      for (int64_t n = 0; n < columns; n++) c[n] = adds ? c[n] + row[n] : row[n];
    }
  }
}

template <class real> using Tile = void (*)(const real*, const real*, int64_t, real*, int64_t, int64_t, bool);
template <class real, int... R> constexpr Tile<real> tile_of(int rows, std::integer_sequence<int, R...>) {
  constexpr Tile<real> tiles[] = {multiply_tile<real, R + 1>...};
  return tiles[rows - 1];
}

/// to[k][i] = from[i * stride_i + k * stride_k] for i < count, and 0 up to `width`.
template <class real> void pack(const real* from, int64_t stride_i, int64_t stride_k, int64_t count, int64_t width, int64_t depth, real* to) {
  if (stride_i == 1) {
    for (int64_t k = 0; k < depth; k++, to += width, from += stride_k) {
      std::copy_n(from, count, to);
      std::fill(to + count, to + width, real{0});
    }
    return;
  }
  for (int64_t k = 0; count < width && k < depth; k++) std::fill(to + k * width + count, to + (k + 1) * width, real{0});
  constexpr int64_t BLOCK = 16;  // a cache line of each row at a time
  for (int64_t start = 0; start < depth; start += BLOCK)
    for (int64_t i = 0; i < count; i++)
      for (int64_t k = start; k < std::min(start + BLOCK, depth); k++) to[k * width + i] = from[i * stride_i + k * stride_k];
}

struct Range {
  int64_t first, end;
  int64_t size() const { return end - first; }
};
/// Part i of n, in units of `unit`.
Range part(int64_t size, int64_t unit, int64_t i, int64_t n) {
  const int64_t units = (size + unit - 1) / unit;
  return {std::min(size, units * i / n * unit), std::min(size, units * (i + 1) / n * unit)};
}

template <class real> void multiply_rectangle(const Product<real>& p, Range rows, Range columns) {
  static thread_local const Packed<real> packed;
  for (int64_t n = columns.first; n < columns.end; n += WIDTH<real>) {
    const int64_t width = std::min(WIDTH<real>, columns.end - n);
    for (int64_t k = 0; k < p.K; k += DEPTH) {
      const int64_t depth = std::min(DEPTH, p.K - k);
      for (int64_t j = 0; j < width; j += PANEL<real>)
        pack(p.b + k * p.b_k + (n + j) * p.b_n, p.b_n, p.b_k, std::min<int64_t>(PANEL<real>, width - j), PANEL<real>, depth, packed.b() + j * depth);
      const int64_t tiles = (rows.size() + ROWS - 1) / ROWS;  // of nearly the same height
      for (int64_t first = 0; first < tiles; first += TILES) {
        const int64_t last = std::min<int64_t>(first + TILES, tiles);
        const auto tile_rows = [&](int64_t t) { return Range{rows.first + rows.size() * t / tiles, rows.first + rows.size() * (t + 1) / tiles}; };
        for (int64_t t = first; t < last; t++) {
          const Range tile = tile_rows(t);
          pack(p.a + tile.first * p.a_m + k * p.a_k, p.a_m, p.a_k, tile.size(), tile.size(), depth, packed.a() + (t - first) * ROWS * DEPTH);
        }
        for (int64_t j = 0; j < width; j += PANEL<real>)
          for (int64_t t = first; t < last; t++) {
            const Range tile = tile_rows(t);
            tile_of<real>(static_cast<int>(tile.size()), std::make_integer_sequence<int, ROWS>())(
                packed.a() + (t - first) * ROWS * DEPTH, packed.b() + j * depth, depth, p.c + tile.first * p.c_m + n + j, p.c_m,
                std::min<int64_t>(PANEL<real>, width - j), p.adds || k > 0);
          }
      }
    }
  }
}

}  // namespace

template <class real> void multiply_builtin(const Product<real>& p, int threads) {
  if (omp_in_parallel() || threads == 1) return multiply_rectangle(p, {0, p.M}, {0, p.N});
  // Cut so that a thread reads the least of A and B: the rectangle with the smallest rows + columns.
  int across = 1;
  const auto edges = [&](int n) { return p.M / (threads / n) + p.N / n; };
  for (int n = 2; n <= threads; n++)
    if (threads % n == 0 && edges(n) < edges(across)) across = n;
  const int down = threads / across;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int i = 0; i < threads; i++) multiply_rectangle(p, part(p.M, ROWS, i / across, down), part(p.N, PANEL<real>, i % across, across));
}

template void multiply_builtin(const Product<float>&, int);
template void multiply_builtin(const Product<double>&, int);

}  // namespace titan::cpu
