// The matrix product. C is cut into one rectangle per thread; threads share nothing. In its rectangle a thread packs a block of B (DEPTH x WIDTH,
// held in L2) into panels of two vectors' width, and of A one tile of up to ROWS rows at a time, in L1; then tiles of ROWS x two vectors of sums,
// all in registers, run down the depth. Packing makes rows of any stride and storage alike and keeps them from meeting in the same cache sets.
#include "product.h"

#include <new>

#include "packing.h"
#include "parallel.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

constexpr int ROWS = MANY_REGISTERS ? 14 : 6;  // 28 (12) registers of sums, out of 32 (16)
constexpr int TILES = 8;                       // tiles of a transposed A that are packed together, as they share cache lines
constexpr int64_t DEPTH = 384;                 // units (see below)
constexpr int64_t B_BYTES = 3 << 19;
constexpr int64_t HELD_ROWS = 1024, HELD_COLUMNS = 256;  // of f32 sums that wait for more of K before they are rounded to bf16

template <class Math> constexpr int L = LANES<typename Math::sum>;
template <class Math> constexpr int PANEL = 2 * L<Math>;
template <class Math> constexpr int64_t WIDTH = B_BYTES / (DEPTH * int64_t(sizeof(typename Math::sum)) * PANEL<Math>)*PANEL<Math>;
/// Units that are packed for so many elements of K; zeros fill up the last block.
template <class Math> int64_t units_of(int64_t depth) { return round_up(parts(depth, Math::PAIR), Math::BLOCK); }
template <class Math> constexpr int64_t DEEP = DEPTH * Math::PAIR;  // elements of K in a block

// A packed tile of A has its rows behind each other, padded so that they do not meet in cache sets; or transposed, all rows of one unit of K
// next to each other.
constexpr int64_t A_ROW = DEPTH + 16;
template <class Math> constexpr int64_t A_COLUMN = (ROWS + L<Math> - 1) / L<Math> * L<Math>;
template <class Math> constexpr int64_t A_TILE = A_COLUMN<Math> * (DEPTH + 1) + 64 / int64_t(sizeof(typename Math::sum));

/// Memory of one thread, allocated when it first multiplies and kept.
struct Packed {
  static constexpr int64_t A_BYTES = TILES * 16 * (DEPTH + 16) * 8, HELD_BYTES = HELD_ROWS * HELD_COLUMNS * 4;
  char* const memory = static_cast<char*>(::operator new(B_BYTES + A_BYTES + HELD_BYTES, std::align_val_t{64}));
  ~Packed() { ::operator delete(memory, std::align_val_t{64}); }
  template <class real> real* b() const { return reinterpret_cast<real*>(memory); }
  template <class real> real* a() const { return reinterpret_cast<real*>(memory + B_BYTES); }
  float* held() const { return reinterpret_cast<float*>(memory + B_BYTES + A_BYTES); }
};

// ---- packing: `depth` elements of K ----

/// Rows of units [unit, WIDTH] of K become blocks, two rows at a time: the units (k, k + 1) of one row or column of the matrix, then those of the next.
template <class Math, int64_t WIDTH> void make_blocks(typename Math::sum* rows, int64_t depth) {
  using real = typename Math::sum;
  constexpr int64_t COUNT = WIDTH / L<Math>;
  const int64_t units = parts(depth, Math::PAIR);
  for (int64_t k = 0; k < units; k += 2, rows += 2 * WIDTH) {
    vec<real> first[COUNT], second[COUNT];
#pragma GCC unroll 8
    for (int64_t v = 0; v < COUNT; v++) first[v] = load(rows + v * L<Math>), second[v] = k + 1 < units ? load(rows + WIDTH + v * L<Math>) : vec<real>{};
#pragma GCC unroll 8
    for (int64_t v = 0; v < COUNT; v++) {
      store(rows + 2 * v * L<Math>, zip_low(first[v], second[v], lane_indices<real>()));
      store(rows + (2 * v + 1) * L<Math>, zip_high(first[v], second[v], lane_indices<real>()));
    }
  }
}

template <class Math, class T> void pack_a_rows(const T* a, int64_t row, int64_t rows, int64_t depth, typename Math::sum* to) {
  constexpr int64_t STEP = L<Math> * Math::PAIR;
  if constexpr (Math::BLOCK == 2) {  // two rows interleaved, in the place of both
    using pairs = double;            // two units
    for (int64_t r = 0; r < rows; r += 2, a += 2 * row, to += 2 * A_ROW)
      for (int64_t k = 0; k < depth; k += STEP) {
        const auto first = (vec<pairs>)Math::along(a + k, depth - k), second = r + 1 < rows ? (vec<pairs>)Math::along(a + row + k, depth - k) : vec<pairs>{};
        store(to + 2 * k / Math::PAIR, (vec<typename Math::sum>)zip_low(first, second, lane_indices<pairs>()));
        store(to + 2 * k / Math::PAIR + L<Math>, (vec<typename Math::sum>)zip_high(first, second, lane_indices<pairs>()));
      }
    return;
  }
  for (int64_t r = 0; r < rows; r++, a += row, to += A_ROW) {
    int64_t k = 0;
    for (; k + STEP <= depth; k += STEP) store(to + k / Math::PAIR, Math::along(a + k, STEP));
    if (k < depth) store(to + k / Math::PAIR, Math::along(a + k, depth - k));
  }
}

/// Of a transposed A with `M` rows, tiles first..last of those that `tile_rows` tells.
template <class Math, class T, class TileRows>
void pack_a_columns(const T* a, int64_t column, int64_t M, TileRows tile_rows, int64_t first, int64_t last, int64_t depth, typename Math::sum* to) {
  int64_t starts[TILES];
  for (int64_t t = first; t < last; t++) starts[t - first] = tile_rows(t).first;
  typename Math::sum* const tiles = to;
  for (int64_t k = 0; k < depth; k += Math::PAIR, a += Math::PAIR * column, to += A_COLUMN<Math>)
    for (int64_t t = 0; t < last - first; t++) {
      const T* from = a + starts[t];
      __builtin_prefetch(from + 8 * column);  // columns are far apart: the processor's own prefetch does not see them coming
#pragma GCC unroll 4
      for (int64_t v = 0; v < A_COLUMN<Math>; v += L<Math>)
        store(to + t * A_TILE<Math> + v, Math::across(from + v, column, M - starts[t] - v, k + 1 < depth));
    }
  if constexpr (Math::BLOCK == 2)
    for (int64_t t = 0; t < last - first; t++) make_blocks<Math, A_COLUMN<Math>>(tiles + t * A_TILE<Math>, depth);
}

template <class Math, class T> void pack_b_rows(const T* b, int64_t row, int64_t columns, int64_t depth, typename Math::sum* to) {
  constexpr int64_t GROUP = 4 * PANEL<Math>;  // several panels at a time: longer reads
  const int64_t units = units_of<Math>(depth);
  for (int64_t n = 0; n < columns; n += GROUP) {
    const T* from = b + n;
    typename Math::sum* panel = to + n * units;
    for (int64_t k = 0; k < depth; k += Math::PAIR, from += Math::PAIR * row, panel += PANEL<Math>)
      for (int64_t j = 0; j < least(GROUP, columns - n); j += PANEL<Math>)
#pragma GCC unroll 2
        for (int64_t v = 0; v < PANEL<Math>; v += L<Math>)
          store(panel + j * units + v, Math::across(from + j + v, row, columns - n - j - v, k + 1 < depth));
  }
  if constexpr (Math::BLOCK == 2)
    for (int64_t n = 0; n < columns; n += PANEL<Math>) make_blocks<Math, PANEL<Math>>(to + n * units, depth);
}

template <class Math, class T> void pack_b_columns(const T* b, int64_t column, int64_t columns, int64_t depth, typename Math::sum* to) {
  using real = typename Math::sum;
  constexpr int64_t STEP = L<Math> * Math::PAIR;
  const int64_t units = units_of<Math>(depth);
  for (int64_t n = 0; n < columns; n += PANEL<Math>, to += PANEL<Math> * units) {
    for (int64_t k = 0; k < depth; k += STEP)
      for (int64_t v = 0; v < PANEL<Math>; v += L<Math>) {
        const T* from = b + (n + v) * column + k;
        real* block_to = to + k / Math::PAIR * PANEL<Math> + v;
        vec<real> block[L<Math>];
        if (n + v + L<Math> <= columns && k + STEP <= depth) {
#pragma GCC unroll 16
          for (int i = 0; i < L<Math>; i++) block[i] = Math::along(from + i * column, STEP);
        } else {
          for (int i = 0; i < L<Math>; i++) block[i] = n + v + i < columns ? Math::along(from + i * column, depth - k) : vec<real>{};
        }
        transpose<real>(block);
        if (k + STEP <= depth) {
#pragma GCC unroll 16
          for (int i = 0; i < L<Math>; i++) store(block_to + i * PANEL<Math>, block[i]);
        } else {
          for (int i = 0; i < units - k / Math::PAIR; i++) store(block_to + i * PANEL<Math>, block[i]);
        }
      }
    if constexpr (Math::BLOCK == 2) make_blocks<Math, PANEL<Math>>(to, depth);
  }
}

// ---- tiles ----

#ifdef TITAN_MULTIPLIES_BLOCKS
/// sums[R, PANEL] = a[R, units] b[units, PANEL], both of blocks.
template <class Math, int R, bool A_BY_ROWS> TITAN_INLINE void sum_blocks(const float* a, const float* b, int64_t units, vec<float> (&sums)[R][2]) {
  constexpr int ROW_PAIRS = (R + 1) / 2, COLUMN_PAIRS = PANEL<Math> / 2;
  constexpr int64_t ROW = A_BY_ROWS ? 2 * A_ROW : L<Math>, COLUMN = A_BY_ROWS ? L<Math> : 2 * A_COLUMN<Math>;
  vec<float> blocks[ROW_PAIRS][COLUMN_PAIRS] = {};
#pragma GCC unroll 1
  for (int64_t k = 0; k < units; k += 2, a += COLUMN, b += 2 * PANEL<Math>) {
    vec<float> right[COLUMN_PAIRS];
#pragma GCC unroll 4
    for (int j = 0; j < COLUMN_PAIRS; j++) right[j] = load(b + j * L<Math>);
    __builtin_prefetch(b + 1024 / sizeof(float));
#pragma GCC unroll 8
    for (int i = 0; i < ROW_PAIRS; i++) {
      const vec<float> left = load(a + i * ROW);
#pragma GCC unroll 4
      for (int j = 0; j < COLUMN_PAIRS; j++) blocks[i][j] = add_block_products(blocks[i][j], left, right[j]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) {
      const vec<float> x = blocks[r / 2][2 * v], y = blocks[r / 2][2 * v + 1];
      sums[r][v] = r % 2 ? __builtin_shufflevector(x, y, 2, 3, 6, 7) : __builtin_shufflevector(x, y, 0, 1, 4, 5);
    }
}
#endif

/// c[R, PANEL] (+)= a[R, units] b[units, PANEL]
template <class Math, int R, bool A_BY_ROWS, class C>
void multiply_tile(const typename Math::sum* a, const typename Math::sum* b, int64_t units, C* c, int64_t c_row, bool adds) {
  using real = typename Math::sum;
  constexpr int64_t ROW = A_BY_ROWS ? A_ROW : 1, COLUMN = A_BY_ROWS ? 1 : A_COLUMN<Math>, AHEAD = 1024 / sizeof(real);
  vec<real> sums[R][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) sums[r][0] = sums[r][1] = vec<real>{};
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    __builtin_prefetch(c + r * c_row, 1);
    __builtin_prefetch(c + r * c_row + PANEL<Math> - 1, 1);
  }
#ifdef TITAN_MULTIPLIES_BLOCKS
  if constexpr (Math::BLOCK == 2) sum_blocks<Math, R, A_BY_ROWS>(a, b, units, sums), units = 0;
#endif
#pragma GCC unroll 1
  for (int64_t k = 0; k < units; k++, a += COLUMN, b += PANEL<Math>) {
    const vec<real> left = in_register(load(b)), right = in_register(load(b + L<Math>));
    __builtin_prefetch(b + AHEAD);
    __builtin_prefetch(b + AHEAD + L<Math>);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const vec<real> scale = Math::spread(a + r * ROW);
      Math::add(sums[r][0], scale, left);
      Math::add(sums[r][1], scale, right);
    }
  }
  if (adds) {
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      sums[r][0] += load(c + r * c_row);
      sums[r][1] += load(c + r * c_row + L<Math>);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    store_result(c + r * c_row, sums[r][0]);
    store_result(c + r * c_row + L<Math>, sums[r][1]);
  }
}

template <class Math, class C> using Tile = void (*)(const typename Math::sum*, const typename Math::sum*, int64_t, C*, int64_t, bool);
template <class Math, class C, bool A_BY_ROWS, int... R> constexpr Tile<Math, C> tile_of(int64_t rows, std::integer_sequence<int, R...>) {
  constexpr Tile<Math, C> tiles[] = {multiply_tile<Math, R + 1, A_BY_ROWS, C>...};
  return tiles[rows - 1];
}
template <class Math, class C> Tile<Math, C> tile_of(int64_t rows, bool a_by_rows) {
  constexpr std::make_integer_sequence<int, ROWS> all;
  return a_by_rows ? tile_of<Math, C, true>(rows, all) : tile_of<Math, C, false>(rows, all);
}

template <class Math> struct Rectangle {
  using real = typename Math::sum;
  const Product& p;
  real *packed_a, *packed_b;

  /// Rows x columns of `to` = a b over depth elements of K from k on, + `from` where there is one. B is packed.
  void multiply(Span rows, Span columns, int64_t k, int64_t depth, const Stored* from, const Stored& to) const {
    const int64_t tiles = parts(rows.size(), ROWS);
    const auto tile_rows = [&](int64_t t) { return part(rows, 1, t, tiles); };
    const bool by_rows = p.a.column == 1;
    for (int64_t first = 0; first < tiles; first += TILES) {
      const int64_t last = least(first + TILES, tiles);
      if (!by_rows)
        with_operand<Math>(p.a, [&](auto* a) { pack_a_columns<Math>(a + k * p.a.column, p.a.column, p.M, tile_rows, first, last, depth, packed_a); });
      for (int64_t t = first; t < last; t++) {
        const Span tile = tile_rows(t);
        if (by_rows) with_operand<Math>(p.a, [&](auto* a) { pack_a_rows<Math>(a + tile.first * p.a.row + k, p.a.row, tile.size(), depth, packed_a); });
        multiply_row_of_tiles(packed_a + (by_rows ? 0 : (t - first) * A_TILE<Math>), tile, columns, units_of<Math>(depth), from, to);
      }
    }
  }

 private:
  void multiply_row_of_tiles(const real* a, Span rows, Span columns, int64_t units, const Stored* from, const Stored& to) const {
    const bool in_place = !from || from->data == to.data;
    with_stored<Math>(to, [&]<class C>(C* c) {
      const auto multiply_tile = tile_of<Math, C>(rows.size(), p.a.column == 1);
      for (int64_t n = columns.first; n < columns.end; n += PANEL<Math>) {
        const real* b = packed_b + (n - columns.first) * units;
        const int64_t count = least(PANEL<Math>, columns.end - n);
        if (in_place && count == PANEL<Math>) {
          multiply_tile(a, b, units, c + rows.first * to.row + n, to.row, from);
          continue;
        }
        alignas(64) real tile[ROWS * PANEL<Math>];
        tile_of<Math, real>(rows.size(), p.a.column == 1)(a, b, units, tile, PANEL<Math>, false);
        for (int64_t r = 0; r < rows.size(); r++)
          for (int64_t j = 0; j < count; j += L<Math>) {
            vec<real> sum = load(tile + r * PANEL<Math> + j);
            const int64_t lanes = least(L<Math>, count - j);
            if (from) with_stored<Math>(*from, [&](auto* f) { sum += load_first(f + (rows.first + r) * from->row + n + j, lanes); });
            C* at = c + (rows.first + r) * to.row + n + j;
            if (lanes == L<Math>) store_result(at, sum);
            else store(at, sum, lanes);
          }
      }
    });
  }
};

template <class Math> void multiply_rectangle(const Product& p, Span rows, Span columns) {
  using real = typename Math::sum;
  static thread_local const Packed packed;
  const Rectangle<Math> rectangle{p, packed.a<real>(), packed.b<real>()};
  // Blocks of nearly equal size. How K is cut decides how sums are rounded, so it depends on nothing but K.
  const int64_t depth = round_up(parts(p.K, parts(p.K, DEEP<Math>)), L<Math> * Math::PAIR);
  const bool holds = p.c.dtype == DType::bf16 && depth < p.K;
  const int64_t width = holds ? HELD_COLUMNS : WIDTH<Math>, column_parts = parts(columns.size(), width);
  const int64_t row_parts = holds ? parts(rows.size(), HELD_ROWS) : 1;
  for (int64_t i = 0; i < column_parts * row_parts; i++) {
    const Span block_columns = part(columns, PANEL<Math>, i / row_parts, column_parts), block_rows = part(rows, 1, i % row_parts, row_parts);
    const Stored held{packed.held() - (block_rows.first * HELD_COLUMNS + block_columns.first), DType::f32, HELD_COLUMNS, 1};
    for (int64_t k = 0; k < p.K; k += depth) {
      const int64_t block_depth = least(depth, p.K - k);
      with_operand<Math>(p.b, [&](auto* b) {
        b += k * p.b.row + block_columns.first * p.b.column;
        if (p.b.column == 1) pack_b_rows<Math>(b, p.b.row, block_columns.size(), block_depth, rectangle.packed_b);
        else pack_b_columns<Math>(b, p.b.column, block_columns.size(), block_depth, rectangle.packed_b);
      });
      const Stored* from = k ? (holds ? &held : &p.c) : p.adds ? &p.c : nullptr;
      rectangle.multiply(block_rows, block_columns, k, block_depth, from, holds && k + block_depth < p.K ? held : p.c);
    }
  }
}

/// How many threads stand side by side along N, the others below each other along M: such that a thread has the least to multiply and to pack.
template <class Math> int threads_across(const Product& p, int threads) {
  int best = 1;
  int64_t least_cost = INT64_MAX;
  for (int across = 1; across <= threads; across++) {
    if (threads % across) continue;
    const int64_t rows = parts(p.M, threads / across), columns = round_up(parts(p.N, across), PANEL<Math>);
    // An element takes as long to pack as 16 to 32 products with it; A is packed anew for each block of columns.
    const int64_t cost = rows * columns / 32 + rows * parts(columns, WIDTH<Math>) * (p.a.column == 1 ? 1 : 2) + 2 * columns;
    if (cost < least_cost) best = across, least_cost = cost;
  }
  return best;
}

template <class Math> void multiply(const Product& p, int threads) {
  if (threads == 1 || in_parallel()) return multiply_rectangle<Math>(p, {0, p.M}, {0, p.N});
  const int across = threads_across<Math>(p, threads), down = threads / across;
  for_each(threads, threads, [&](int64_t i) {
    const Span rows = part({0, p.M}, 1, i / across, down), columns = part({0, p.N}, PANEL<Math>, i % across, across);
    if (rows.size() && columns.size()) multiply_rectangle<Math>(p, rows, columns);
  });
}

}  // namespace

void multiply_own(const Product& product, int threads) {
  if (is_of_few_rows(product)) return multiply_few_rows(product, threads);
  Product p = product;
  // The stride of a dim of size 1 is never followed; the other one then has to be the unit.
  if (p.a.column != 1 && p.K == 1) p.a.column = 1;
  if (p.a.column != 1) p.a.row = 1;
  if (p.b.column != 1 && p.N == 1 && p.b.row != 1) p.b.column = 1;
  if (p.b.column != 1) p.b.row = 1;
#if defined(__AMX_BF16__)
  if (p.bf16) return multiply_in_tiles(p, threads);
#elif defined(TITAN_MULTIPLIES_BLOCKS)
  if (p.bf16) return multiply<Bf16Blocks>(p, threads);
#else
  if (p.bf16) return multiply<Bf16>(p, threads);
#endif
  if (p.c.dtype == DType::f64) multiply<Plain<double>>(p, threads);
  else multiply<Plain<float>>(p, threads);
}

}  // namespace titan::cpu::inline TITAN_LEVEL
