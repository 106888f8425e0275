// The bf16 product on tiles. The threads pack a block of B together, and each multiplies its own rectangle of C with it, while of A a thread packs
// some rows at a time, or reads tiles right from memory where A lies in rows of bf16. At this speed a product is bound by packing and by memory.
#include "product.h"
#include "tiles.h"
#if defined(__AMX_BF16__)
#include <new>

#include "packing.h"
#include "parallel.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

constexpr int64_t LINES = 2 * TILE_ROWS;                // rows of A or columns of B that are multiplied at a time, in two tiles
constexpr int64_t PAIR_BYTES = LINES * TILE_ROW_BYTES;  // two packed tiles
constexpr int64_t DEPTH = 1024;                         // of K in a block, at most
constexpr int64_t NEAR = 8;                             // times TILE_DEPTH, at most: A and the sums of some rows then stay in L1 and L2
constexpr int64_t B_BYTES = 1 << 20, A_BYTES = 1 << 19;
constexpr int64_t HELD_ROWS = 1024, HELD_COLUMNS = 256, HELD = HELD_ROWS * HELD_COLUMNS;  // of f32 sums that wait for more of K before they are rounded

/// Memory of one thread, allocated when it first multiplies and kept.
template <int64_t BYTES> char* kept_memory() {
  static thread_local const struct Kept {
    char* const data = static_cast<char*>(::operator new(BYTES, std::align_val_t{64}));
    ~Kept() { ::operator delete(data, std::align_val_t{64}); }
  } kept;
  return kept.data;
}

// ---- packing ----
// Rows of A and columns of B are lines: packed, they come in groups of LINES, and a group has two tiles for each
// TILE_DEPTH of K, behind each other.

/// One tile from `from` on, of which `lines` and `depth` exist; zeros for the rest.
template <bool LINES_ARE_ROWS, bool ALONG, class T> TITAN_INLINE void pack_tile(const T* from, int64_t stride, int64_t lines, int64_t depth, char* to) {
  vec<float> rows[TILE_ROWS];
#pragma GCC unroll 16
  for (int i = 0; i < TILE_ROWS; i++) {
    if constexpr (ALONG) {
      rows[i] = i < lines ? Bf16::along(from + i * stride, depth) : vec<float>{};
    } else {
      rows[i] = 2 * i < depth ? Bf16::across(from + 2 * i * stride, stride, lines, 2 * i + 1 < depth) : vec<float>{};
    }
  }
  if constexpr (ALONG != LINES_ARE_ROWS) transpose<float>(rows);
#pragma GCC unroll 16
  for (int i = 0; i < TILE_ROWS; i++) store(reinterpret_cast<float*>(to + i * TILE_ROW_BYTES), rows[i]);
}

/// Lines of `lines`, in whole groups, and `depth` of K from k on.
template <bool LINES_ARE_ROWS, bool ALONG, class T> void pack(const T* from, int64_t stride, int64_t lines, int64_t depth, char* to) {
  const int64_t depths = parts(depth, TILE_DEPTH), groups = parts(lines, LINES);
  const auto one = [&](int64_t group, int64_t d, int64_t half) {
    const int64_t line = group * LINES + half * TILE_ROWS, k = d * TILE_DEPTH;
    if (line >= lines) return;
    const T* tile = ALONG ? from + line * stride + k : from + k * stride + line;
    char* at = to + (group * depths + d) * PAIR_BYTES + half * TILE_BYTES;
    if constexpr (!ALONG)  // rows of the matrix are far apart: the processor's own prefetch does not see them coming
      for (int64_t i = 0; i < TILE_DEPTH && half == 0; i++) __builtin_prefetch(tile + i * stride + 2 * LINES);
    if (line + TILE_ROWS <= lines && k + TILE_DEPTH <= depth) pack_tile<LINES_ARE_ROWS, ALONG>(tile, stride, TILE_ROWS, TILE_DEPTH, at);
    else pack_tile<LINES_ARE_ROWS, ALONG>(tile, stride, lines - line, depth - k, at);
  };
  if (ALONG) {
    for (int64_t group = 0; group < groups; group++)
      for (int64_t half = 0; half < 2; half++)
        for (int64_t d = 0; d < depths; d++) one(group, d, half);
  } else {
    for (int64_t d = 0; d < depths; d++)
      for (int64_t group = 0; group < groups; group++)
        for (int64_t half = 0; half < 2; half++) one(group, d, half);
  }
}
template <bool LINES_ARE_ROWS> void pack(const Stored& matrix, int64_t line_stride, int64_t k_stride, Span lines, Span k, char* to) {
  with_operand<Bf16>(matrix, [&](auto* data) {
    data += lines.first * line_stride + k.first * k_stride;
    if (k_stride == 1) pack<LINES_ARE_ROWS, true>(data, line_stride, lines.size(), k.size(), to);
    else pack<LINES_ARE_ROWS, false>(data, k_stride, lines.size(), k.size(), to);
  });
}

// ---- tiles ----

template <class T> TITAN_INLINE T* element(const Stored& matrix, int64_t row, int64_t column) { return static_cast<T*>(matrix.data) + row * matrix.row + column; }

/// to[rows, columns] = left right + `from` where there is one; at most R x C tiles, whose sums start at (row, column).
template <int R, int C>
void multiply_block(const TileOperand& left, const TileOperand& right, int64_t depths, const Stored* from, const Stored& to, int64_t row, int64_t column, int64_t rows, int64_t columns) {
  const bool whole = rows == R * TILE_ROWS && columns == C * TILE_ROWS;
  const bool starts_from = whole && from && from->dtype == DType::f32;
  if (starts_from) each_tile<R, C>([&](auto tile, int r, int c) { tile_load<tile>(element<float>(*from, row + r * TILE_ROWS, column + c * TILE_ROWS), from->row * 4); });
  else each_tile<R, C>([&](auto tile, int, int) { tile_zero<tile>(); });
  const bool summed = !from || starts_from, in_place = whole && summed && to.dtype == DType::f32;
  multiply_add_tiles<R, C>(left, right, depths);
  if (in_place) return each_tile<R, C>([&](auto tile, int r, int c) { tile_store<tile>(element<float>(to, row + r * TILE_ROWS, column + c * TILE_ROWS), to.row * 4); });
  alignas(64) float sums[R * TILE_ROWS][LINES];
  each_tile<R, C>([&](auto tile, int r, int c) { tile_store<tile>(&sums[r * TILE_ROWS][c * TILE_ROWS], LINES * 4); });
  if (to.dtype == DType::bf16 && whole && C == 2 && summed) {
    for (int64_t r = 0; r < rows; r++) Bf16::store_both(element<bf16>(to, row + r, column), load(sums[r]), load(sums[r] + TILE_ROWS));
    return;
  }
  for (int64_t r = 0; r < rows; r++)
    for (int64_t j = 0; j < columns; j += TILE_ROWS) {
      const int64_t lanes = least(TILE_ROWS, columns - j);
      vec<float> sum = load(sums[r] + j);
      if (!summed) with_stored<Bf16>(*from, [&](auto* f) { sum += load_first(f + (row + r) * from->row + column + j, lanes); });
      with_stored<Bf16>(to, [&](auto* t) { store(t + (row + r) * to.row + column + j, sum, lanes); });
    }
}

struct Rectangle {
  const Product& p;
  char* packed_a;
  float* sums;  // of HELD, while nothing is held there

  /// Rows x columns of `to` = a b over K from k on, + `from` where there is one. B is packed.
  void multiply(Span rows, Span columns, Span k, const char* packed_b, const Stored* from, const Stored& to) const {
    const int64_t depths = parts(k.size(), TILE_DEPTH), group_bytes = depths * PAIR_BYTES, near = parts(depths, parts(depths, NEAR));
    const bool by_rows = p.a.column == 1, direct = by_rows && p.a.dtype == DType::bf16 && k.size() % TILE_DEPTH == 0;
    const int64_t width = round_up(columns.size(), LINES), most = near < depths && width ? HELD / width / LINES : 8;
    const int64_t chunk = by_rows ? LINES : least(least(8, A_BYTES / group_bytes), most) * LINES;
    for (int64_t first = rows.first; first < rows.end; first += chunk) {
      const Span some{first, least(first + chunk, rows.end)};
      const bool packs = !direct || some.size() < LINES;
      if (packs) pack<true>(p.a, p.a.row, p.a.column, some, k, packed_a);
      const Stored partial = to.dtype == DType::f32 ? to : from && from->dtype == DType::f32 ? *from : Stored{sums - (first * width + columns.first), DType::f32, width, 1};
      for (int64_t d = 0; d < depths; d += near) {
        const int64_t count = least(near, depths - d);
        for (int64_t n = columns.first; n < columns.end; n += LINES)
          for (int64_t m = some.first; m < some.end; m += LINES) {
            const TileOperand right{packed_b + (n - columns.first) / LINES * group_bytes + d * PAIR_BYTES, TILE_BYTES, PAIR_BYTES, TILE_ROW_BYTES};
            const TileOperand left = packs ? TileOperand{packed_a + (m - some.first) / LINES * group_bytes + d * PAIR_BYTES, TILE_BYTES, PAIR_BYTES, TILE_ROW_BYTES}
                                           : TileOperand{element<bf16>(p.a, m, k.first + d * TILE_DEPTH), TILE_ROWS * p.a.row * 2, TILE_ROW_BYTES, p.a.row * 2};
            const int64_t height = least(LINES, some.end - m), breadth = least(LINES, columns.end - n);
            const auto multiply = height > TILE_ROWS ? breadth > TILE_ROWS ? multiply_block<2, 2> : multiply_block<2, 1> : breadth > TILE_ROWS ? multiply_block<1, 2> : multiply_block<1, 1>;
            multiply(left, right, count, d ? &partial : from, d + count < depths ? partial : to, m, n, height, breadth);
          }
      }
    }
  }
};

/// How many threads stand side by side along N, the others below each other along M: such that a thread has the least to multiply and to pack.
int threads_across(const Product& p, int threads, int64_t width) {
  int best = 1;
  int64_t least_cost = INT64_MAX;
  for (int across = 1; across <= threads; across++) {
    if (threads % across) continue;
    const int64_t rows = round_up(parts(p.M, threads / across), LINES), columns = round_up(parts(p.N, across), LINES);
    // An element of A takes as long to pack as 64 products with it, and is packed anew for each block of columns.
    const int64_t cost = rows * (columns + 64 * parts(p.N, width));
    if (cost < least_cost) best = across, least_cost = cost;
  }
  return best;
}

/// The part of thread i of n. All of them go through the same blocks of B, and meet when one is packed.
void multiply_part(const Product& p, char* blocks, int i, int n) {
  // Blocks of nearly equal size. How K is cut decides how sums are rounded, so it depends on nothing but K.
  const int64_t depth = round_up(parts(p.K, parts(p.K, DEPTH)), TILE_DEPTH);
  const bool holds = p.c.dtype == DType::bf16 && depth < p.K;
  const int64_t most = B_BYTES / (2 * depth) / LINES * LINES, width = holds ? HELD_COLUMNS : most;
  const int across = threads_across(p, n, width), down = n / across;
  const int64_t column_parts = parts(p.N, width), row_parts = holds ? parts(round_up(parts(p.M, down), LINES), HELD_ROWS) : 1;
  const Span own_rows = part({0, p.M}, LINES, i / across, down);
  char* const memory = kept_memory<A_BYTES + HELD * 4>();
  float* const sums = reinterpret_cast<float*>(memory + A_BYTES);
  const Rectangle rectangle{p, memory, sums};
  const Tiles tiles;
  int64_t block = 0;
  for (int64_t c = 0; c < column_parts * row_parts; c++) {
    const Span all_columns = part({0, p.N}, LINES, c / row_parts, column_parts), columns = part(all_columns, LINES, i % across, across);
    const Span rows = part(own_rows, LINES, c % row_parts, row_parts);
    const Stored held{sums - (rows.first * HELD_COLUMNS + columns.first), DType::f32, HELD_COLUMNS, 1};
    for (int64_t first = 0; first < p.K; first += depth, block++) {
      const Span k{first, least(first + depth, p.K)};
      char* const packed_b = blocks + block % 2 * B_BYTES;  // two in turn: who is done packs the next while others still multiply
      const int64_t column_bytes = parts(k.size(), TILE_DEPTH) * TILE_ROW_BYTES;
      const Span packs = part(all_columns, LINES, i, n);
      pack<false>(p.b, p.b.column, p.b.row, packs, k, packed_b + (packs.first - all_columns.first) * column_bytes);
      if (n > 1) barrier();
      const Stored* from = first ? (holds ? &held : &p.c) : p.adds ? &p.c : nullptr;
      rectangle.multiply(rows, columns, k, packed_b + (columns.first - all_columns.first) * column_bytes, from, holds && k.end < p.K ? held : p.c);
    }
  }
}

}  // namespace

void multiply_in_tiles(const Product& p, int threads) {
  char* const blocks = kept_memory<2 * B_BYTES>();
  if (threads == 1 || in_parallel()) return multiply_part(p, blocks, 0, 1);
  on_each_thread(threads, [&](int thread, int count) { multiply_part(p, blocks, thread, count); });
}

}  // namespace titan::cpu::inline TITAN_LEVEL
#endif
