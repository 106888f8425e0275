#include "mma.h"

#include <utility>

#include "emulator.h"

namespace titan::cuda::host {
namespace {

struct Operands {
  uint32_t a[4], b[2];
};
unsigned bank_conflicts = 0;

/// Of a warp's matrices: rows that lie in the banks of a row before, 16 bytes of 128.
unsigned conflicts_of(const char* const (&rows)[32]) {
  unsigned conflicts = 0;
  for (unsigned row = 0; row < 32; row++)
    for (unsigned before = row / 8 * 8; before < row; before++)
      if (rows[before] != rows[row] && reinterpret_cast<uintptr_t>(rows[before]) / 16 % 8 == reinterpret_cast<uintptr_t>(rows[row]) / 16 % 8) {
        conflicts++;
        break;
      }
  return conflicts;
}
float half_of(uint32_t pair, int which) { return __builtin_bit_cast(float, which ? pair & 0xffff0000 : pair << 16); }

}  // namespace

// PTX ISA, Warp Level Matrix Instructions, "Matrix Fragments for mma.m16n8k16 with floating point type": the row of a's element i of a lane is
// groupID for 0 <= i < 2 and 4 <= i < 6, else groupID + 8; its column is threadID_in_group * 2 + (i & 1), and + 8 for i >= 4. The row of b's is
// threadID_in_group * 2 + (i & 1), and + 8 for i >= 2; its column is groupID. Of the sums, the row is groupID, and + 8 for i >= 2.
void multiply_add(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const char* file, int line) {
  const Operands own{{a[0], a[1], a[2], a[3]}, {b0, b1}};
  Operands all[32];
  exchange(~0u, own, all, file, line);
  const auto a_at = [&](unsigned row, unsigned k) { return half_of(all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2], k % 2); };
  const auto b_at = [&](unsigned k, unsigned column) { return half_of(all[column * 4 + k % 8 / 2].b[k / 8], k % 2); };
  for (unsigned i = 0; i < 4; i++) {
    const unsigned row = place.lane / 4 + i / 2 * 8, column = place.lane % 4 * 2 + i % 2;
    for (unsigned k = 0; k < 16; k++) sums[i] += a_at(row, k) * b_at(k, column);
  }
}

// PTX ISA, ldmatrix: addresses of lanes 0-7 are those of matrix 0, 8-15 of matrix 1, and so on; a row begins at a multiple of 16 bytes.
void load_matrices(uint32_t (&to)[4], const void* row, bool transposed, const char* file, int line) {
  const char* rows[32];
  exchange(~0u, static_cast<const char*>(row), rows, file, line);
  touch_shared(row, 16, 16, false);
  if (place.lane == 0) bank_conflicts += conflicts_of(rows);
  const unsigned group = place.lane / 4, thread = place.lane % 4;
  for (unsigned matrix = 0; matrix < 4; matrix++)
    for (unsigned i = 0; i < 2; i++) {
      const char* const at = transposed ? rows[matrix * 8 + thread * 2 + i] + 2 * group : rows[matrix * 8 + group] + 2 * (thread * 2 + i);
      touch_shared(at, 2, 2, false);  // by the lane that gets it
      __builtin_memcpy(reinterpret_cast<char*>(&to[matrix]) + 2 * i, at, 2);
    }
}

unsigned take_bank_conflicts() { return std::exchange(bank_conflicts, 0); }

}  // namespace titan::cuda::host
