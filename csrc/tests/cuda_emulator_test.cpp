// The emulator runs kernels as CUDA does, and refuses what CUDA leaves undefined. This file is compiled as the kernels are (cmake/cuda_emulated.cmake).
#include "../cuda/launch.h"
#include "../cuda/mma.h"
#include "test.h"

using namespace titan;
using namespace titan::cuda;
using namespace titan::test;

/// Reported access by access as all of this file, and linked before the emulator, which makes its messages with it.
template class std::basic_string<char>;

/// What is refused of kernels over x and y, which have 256 numbers each, x[i] = i.
struct Numbers {
  Array<float> x{{256}}, y{{256}};
  CallBuilder builder;
  Numbers() {
    x.fill([](int64_t i) { return double(i); });
    builder.add(x).add(y);
  }
  template <class... Parameters, class... Arguments>
  std::string run(void (*kernel)(Parameters...), const Shape& shape, Arguments... arguments) {
    launch(kernel, shape, builder.call(1), arguments...);
    return host::take_error();
  }
  template <class... Parameters, class... Arguments>
  std::string run(void (*kernel)(Parameters...), dim3 grid, dim3 block, Arguments... arguments) {
    return run(kernel, Shape(grid, block), arguments...);
  }
};
#define REFUSED(error, part)                                                                                                    \
  do {                                                                                                                          \
    const std::string error_ = error;                                                                                           \
    if (error_.find(part) == std::string::npos) std::printf("%s:%d: \"%s\" lacks \"%s\"\n", __FILE__, __LINE__, error_.c_str(), part), failures++; \
  } while (0)

__global__ void reverse(const float* x, float* y, bool waits) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
  if (waits) __syncthreads();
  y[blockIdx.x * 64 + threadIdx.x] = tile[63 - threadIdx.x];
}
void barriers_order_shared_memory() {
  for (int launches = 0; launches < 2; launches++) {  // forwards and backwards
    Numbers n;
    EXPECT(n.run(reverse, 4, 64, n.x.data(), n.y.data(), true).empty());
    for (int64_t i = 0; i < 256; i++) EXPECT(n.y[i] == n.x[i / 64 * 64 + 63 - i % 64]);
    REFUSED(n.run(reverse, 4, 64, n.x.data(), n.y.data(), false), "shared memory");
  }
}

/// `late` writes what the other threads have read, in the same interval.
__global__ void write_after_read(const float* x, float* y, bool waits, bool is_shared) {
  __shared__ float place;
  float* const at = is_shared ? &place : y;
  if (threadIdx.x == 0) *at = x[0];
  __syncthreads();
  const float read = *at;
  if (waits) __syncthreads();
  if (threadIdx.x == 63) *at = read + 1;
}
__global__ void two_blocks(const float* x, float* y) {
  if (threadIdx.x == 0) y[0] = x[blockIdx.x];
}
__global__ void read_of_another_block(float* y) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) y[0] = 1;
  else y[1] = y[0];
}
__global__ void neighbours(bf16* y) { y[threadIdx.x] = bf16(1.f); }
void races_are_refused() {
  Numbers n;
  for (const bool is_shared : {false, true}) {
    EXPECT(n.run(write_after_read, 1, 64, n.x.data(), n.y.data(), true, is_shared).empty());
    REFUSED(n.run(write_after_read, 1, 64, n.x.data(), n.y.data(), false, is_shared), is_shared ? "shared memory that another thread" : "global memory that another thread");
  }
  for (int launches = 0; launches < 2; launches++) {
    REFUSED(n.run(two_blocks, 2, 32, n.x.data(), n.y.data()), "global memory that another thread");
    REFUSED(n.run(read_of_another_block, 2, 32, n.y.data()), "global memory that another thread");
  }
  EXPECT(n.run(two_blocks, 1, 32, n.x.data(), n.y.data()).empty());
  EXPECT(n.run(neighbours, 1, 64, reinterpret_cast<bf16*>(n.y.data())).empty());
}

__global__ void in_a_warp(const float* x, float* y, bool waits) {
  __shared__ float tile[32];
  tile[threadIdx.x] = x[threadIdx.x];
  if (waits) __syncwarp();
  y[threadIdx.x] = tile[31 - threadIdx.x];
}
__global__ void across_warps(const float* x, float* y) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[threadIdx.x];
  __syncwarp();
  y[threadIdx.x] = tile[63 - threadIdx.x];
}
void warp_barriers_order_their_warp_alone() {
  Numbers n;
  EXPECT(n.run(in_a_warp, 1, 32, n.x.data(), n.y.data(), true).empty());
  EXPECT(n.y[3] == 28);
  REFUSED(n.run(in_a_warp, 1, 32, n.x.data(), n.y.data(), false), "shared memory");
  REFUSED(n.run(across_warps, 1, 64, n.x.data(), n.y.data()), "shared memory");
}

__global__ void read_unwritten(float* y) {
  __shared__ float tile[64];
  if (threadIdx.x > 0) tile[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x];
}
struct alignas(16) Four {
  float v[4];
};
__global__ void move(const float* x, float* y, int at, bool in_fours) {
  if (in_fours) *reinterpret_cast<Four*>(y) = *reinterpret_cast<const Four*>(x + at);
  else *y = x[at];
}
void memory_is_what_the_call_names() {
  Numbers n;
  for (int launches = 0; launches < 2; launches++) REFUSED(n.run(read_unwritten, 1, 64, n.y.data()), "has not written");
  EXPECT(n.run(move, 1, 32, n.x.data(), n.y.data(), 255, false) .find("another thread") != std::string::npos);  // 32 threads write one place
  static float elsewhere[4] = {1, 2, 3, 4};
  REFUSED(n.run(move, 1, 32, n.x.data(), n.y.data(), 256, false), "reads 4 bytes outside");
  REFUSED(n.run(move, 1, 32, n.x.data(), n.y.data(), -1, false), "reads 4 bytes outside");
  REFUSED(n.run(move, 1, 32, n.x.data(), n.x.data() + 256, 0, false), "writes 4 bytes outside");
  std::vector<float> unknown(8);
  REFUSED(n.run(move, 1, 32, unknown.data(), n.y.data(), 0, false), "reads 4 bytes outside");
  REFUSED(n.run(move, 1, 32, elsewhere, n.y.data(), 0, false), "has not written");  // taken for shared memory
  const int64_t shift = int64_t(reinterpret_cast<uintptr_t>(n.x.data()) % 16 / 4), first = (4 - shift) % 4;
  REFUSED(n.run(move, 1, 32, n.x.data(), n.y.data(), int(first) + 1, true), "multiple");
  REFUSED(n.run(move, 1, 32, n.x.data(), n.y.data(), int(first) + 256, true), "outside");
}

__global__ void some_wait(int from) {
  if (int(threadIdx.x) >= from) __syncthreads();
}
__global__ void two_places(int from) {
  if (int(threadIdx.x) >= from) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void some_exchange(float* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_xor_sync(~0u, y[threadIdx.x], 1);
}
void who_waits_for_nobody_is_told() {
  Numbers n;
  EXPECT(n.run(some_wait, 1, 64, 0).empty());
  EXPECT(n.run(some_wait, 1, 64, 64).empty());
  REFUSED(n.run(some_wait, 1, 64, 1), "63 of 64 threads");
  REFUSED(n.run(two_places, 1, 64, 32), "expected: all in one place");
  REFUSED(n.run(some_exchange, 1, 32, n.y.data()), "16 of 32 threads");
  EXPECT(n.run(some_wait, 1, 64, 0).empty());  // what was left in the middle does not come back
}

__global__ void exchanges(const float* x, float* y) {
  const int i = int(threadIdx.x);
  const float mine = x[i];
  y[i] = __shfl_xor_sync(~0u, mine, 5);
  y[64 + i] = __shfl_up_sync(~0u, mine, 2);
  y[128 + i] = __shfl_down_sync(~0u, double(mine), 3);
  y[192 + i] = __shfl_sync(~0u, mine, 7);
}
__global__ void votes(const float* x, float* y) {
  const int i = int(threadIdx.x);
  y[i] = float(__ballot_sync(~0u, int(x[i]) % 8 == 1));
  y[64 + i] = float(__any_sync(~0u, i == 40) * 10 + __all_sync(~0u, i < 40));
}
void warps_exchange() {
  Numbers n;
  EXPECT(n.run(exchanges, 1, 64, n.x.data(), n.y.data()).empty());
  for (int i = 0; i < 64; i++) {
    const int lane = i % 32, warp = i - lane;
    EXPECT(n.y[i] == float(warp + (lane ^ 5)));
    EXPECT(n.y[64 + i] == float(lane < 2 ? i : i - 2));
    EXPECT(n.y[128 + i] == float(lane > 28 ? i : i + 3));
    EXPECT(n.y[192 + i] == float(warp + 7));
  }
  EXPECT(n.run(votes, 1, 64, n.x.data(), n.y.data()).empty());
  EXPECT(n.y[0] == float(0x02020202u) && n.y[32] == float(0x02020202u));
  EXPECT(n.y[64] == 1 && n.y[64 + 32] == 10);
}

__global__ void whereabouts(float* y) {
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  y[block * 32 + thread] += 1;
}
void every_thread_runs_once() {
  Numbers n;
  n.y.fill([](int64_t) { return 0; });
  EXPECT(n.run(whereabouts, dim3(2, 2, 2), dim3(4, 4, 2), n.y.data()).empty());
  for (int64_t i = 0; i < 256; i++) EXPECT(n.y[i] == 1);
  REFUSED(n.run(whereabouts, 1, 48, n.y.data()), "multiple of 32");
  EXPECT(n.run(whereabouts, 0, 32, n.y.data()).empty());
}

__global__ void any_of_a_block(const float* x, float* y) {
  const bool first = __syncthreads_or(x[threadIdx.x] == 40), second = __syncthreads_or(x[threadIdx.x] == 64);
  y[threadIdx.x] = float(first * 10 + second);
}
void barriers_count_votes() {
  Numbers n;
  EXPECT(n.run(any_of_a_block, 2, 64, n.x.data(), n.y.data()).find("global memory") != std::string::npos);  // two blocks write one place
  EXPECT(n.run(any_of_a_block, 1, 64, n.x.data(), n.y.data()).empty());
  EXPECT(n.y[0] == 10 && n.y[63] == 10);
}

__global__ void fill_shared(float* y, unsigned count) {
  float* const tile = reinterpret_cast<float*>(dynamic_shared());
  for (unsigned i = threadIdx.x; i < count; i += 32) tile[i] = float(i);
  __syncthreads();
  y[threadIdx.x] = tile[count - 1 - threadIdx.x];
}
__global__ void too_much(float* y) { y[threadIdx.x] = 1; }
void dynamic_shared_memory_is_what_a_launch_asks_for() {
  Numbers n;
  EXPECT(n.run(fill_shared, {1, 32, 400}, n.y.data(), 100u).empty());
  EXPECT(n.y[0] == 99);
  REFUSED(n.run(fill_shared, {1, 32, 396}, n.y.data(), 100u), "beyond the 396 bytes");
  REFUSED(n.run(fill_shared, 1, 32, n.y.data(), 100u), "beyond the 0 bytes");
  EXPECT(n.run(fill_shared, {1, 32, 60000}, n.y.data(), 15000u).empty());  // `launch` has it allowed
  REFUSED(n.run(too_much, {1, 32, host::MOST_SHARED_BYTES + 16}, n.y.data()), "expected: at most 49152");
}

/// One warp: products [16, 8] of a[16, 16] and b[16, 8], loaded in the way that `way` says, from rows of shared memory.
__global__ void multiply(const float* a, const float* b, float* c, int way) {
  alignas(16) __shared__ char left[16 * SharedRows<64>::BYTES], right[16 * SharedRows<64>::BYTES];
  const SharedRows<64> of_a(left), of_b(right);
  for (int i = int(threadIdx.x); i < 256; i += 32) {
    if (way == 3) *of_a.at(i % 16, 16 + i / 16) = bf16(a[i]);  // column by column
    else *of_a.at(i / 16, 16 + i % 16) = bf16(a[i]);
    if (way == 1) *of_b.at(i % 16, i / 16) = bf16(b[i]);  // column by column
    else *of_b.at(i / 16, i % 16) = bf16(b[i]);
  }
  if (way != 2) __syncwarp();
  Fragment x, y;
  Sums low = {}, high = {};
  if (way == 3) of_a.load_a_of_columns(x, 16, 0);
  else of_a.load_a(x, 0, 16);
  if (way == 1) of_b.load_b_of_rows(y, 0, 0);
  else of_b.load_b(y, 0, 0);
  multiply_add(low, x, y[0], y[1]);
  multiply_add(high, x, y[2], y[3]);
  const int row = int(threadIdx.x) / 4, column = int(threadIdx.x) % 4 * 2;
  for (int i = 0; i < 4; i++) c[(row + i / 2 * 8) * 16 + column + i % 2] = low[i], c[(row + i / 2 * 8) * 16 + 8 + column + i % 2] = high[i];
}
/// By hand: what lane l holds of a and b is read as the PTX ISA's tables say.
__global__ void multiply_by_the_tables(const float* a, const float* b, float* c) {
  const int g = int(threadIdx.x) / 4, t = int(threadIdx.x) % 4;
  Fragment x;
  for (int i = 0; i < 4; i++) {
    const float* const at = a + (g + (i % 2) * 8) * 16 + t * 2 + (i / 2) * 8;
    x[i] = pack(at[0], at[1]);
  }
  for (int first = 0; first < 16; first += 8) {
    Sums sums = {};
    const auto rows = [&](int k) { return pack(b[k * 16 + first + g], b[(k + 1) * 16 + first + g]); };
    multiply_add(sums, x, rows(2 * t), rows(2 * t + 8));
    for (int i = 0; i < 4; i++) c[(g + i / 2 * 8) * 16 + first + t * 2 + i % 2] = sums[i];
  }
}
/// Its sums, rounded, are the a of a second product with b.
__global__ void multiply_twice(const float* a, const float* b, float* c) {
  const int g = int(threadIdx.x) / 4, t = int(threadIdx.x) % 4;
  const auto of = [&](const float* from, int row, int column, int down, int right) { return pack(from[row * 16 + column], from[(row + down) * 16 + column + right]); };
  Fragment x;
  for (int i = 0; i < 4; i++) x[i] = of(a, g + i % 2 * 8, 2 * t + i / 2 * 8, 0, 1);
  Sums once[2] = {}, twice[2] = {};
  for (int n = 0; n < 2; n++) multiply_add(once[n], x, of(b, 2 * t, 8 * n + g, 1, 0), of(b, 2 * t + 8, 8 * n + g, 1, 0));
  const Fragment next = {pack(once[0][0], once[0][1]), pack(once[0][2], once[0][3]), pack(once[1][0], once[1][1]), pack(once[1][2], once[1][3])};
  for (int n = 0; n < 2; n++) {
    multiply_add(twice[n], next, of(b, 2 * t, 8 * n + g, 1, 0), of(b, 2 * t + 8, 8 * n + g, 1, 0));
    for (int i = 0; i < 4; i++) c[(g + i / 2 * 8) * 16 + 8 * n + 2 * t + i % 2] = twice[n][i];
  }
}
void tensor_cores_multiply() {
  Numbers n;
  Array<float> c{{256}};
  n.builder.add(c);
  // Small whole numbers: each product and each sum is exact, and each element another one.
  n.x.fill([](int64_t i) { return double(i * 7 % 31 - 15); }), n.y.fill([](int64_t i) { return double(i * 5 % 29 - 14); });
  const auto product = [&](int64_t i, const auto& of, int64_t j) {
    double sum = 0;
    for (int64_t k = 0; k < 16; k++) sum += double(of[i * 16 + k]) * double(n.y[k * 16 + j]);
    return sum;
  };
  const auto expect_product = [&](const auto& of) {
    for (int64_t i = 0; i < 256; i++) EXPECT(double(c[i]) == product(i / 16, of, i % 16));
    c.fill([](int64_t) { return 77; });
  };
  for (const int way : {0, 1, 3}) {
    EXPECT(n.run(multiply, 1, 32, n.x.data(), n.y.data(), c.data(), way).empty());
    expect_product(n.x);
  }
  EXPECT(n.run(multiply_by_the_tables, 1, 32, n.x.data(), n.y.data(), c.data()).empty());
  expect_product(n.x);
  REFUSED(n.run(multiply, 1, 32, n.x.data(), n.y.data(), c.data(), 2), "shared memory that another thread");
  Array<float> once{{256}};
  for (int64_t i = 0; i < 256; i++) once[i] = float(bf16(float(product(i / 16, n.x, i % 16))));
  EXPECT(n.run(multiply_twice, 1, 32, n.x.data(), n.y.data(), c.data()).empty());
  expect_product(once);
}

/// Each way of loading, of all rows and columns.
template <int COLUMNS>
__global__ void load_all() {
  const SharedRows<COLUMNS> rows(dynamic_shared());
  for (int i = int(threadIdx.x); i < 16 * COLUMNS; i += 32) *rows.at(i / COLUMNS, i % COLUMNS) = bf16(1.f);
  __syncwarp();
  Fragment x;
  for (int column = 0; column < COLUMNS; column += 16) rows.load_a(x, 0, column), rows.load_a_of_columns(x, column, 0), rows.load_b_of_rows(x, 0, column), rows.load_b(x, 0, column);
}
__global__ void load_without_swizzle() {
  bf16* const rows = reinterpret_cast<bf16*>(dynamic_shared());
  for (int i = int(threadIdx.x); i < 32 * 64; i += 32) rows[i] = bf16(1.f);
  __syncwarp();
  Fragment x;
  load_matrices(x, rows + threadIdx.x * 64);
}
void rows_lie_in_different_banks() {
  Numbers n;
  host::take_bank_conflicts();
  EXPECT(n.run(load_all<64>, {1, 32, 16 * SharedRows<64>::BYTES}).empty());
  EXPECT(n.run(load_all<128>, {1, 32, 16 * SharedRows<128>::BYTES}).empty());
  EXPECT(n.run(load_all<256>, {1, 32, 16 * SharedRows<256>::BYTES}).empty());
  EXPECT(host::take_bank_conflicts() == 0);
  EXPECT(n.run(load_without_swizzle, {1, 32, 32 * 128}).empty());
  EXPECT(host::take_bank_conflicts() == 4 * 7);
}

enum class Copying { RIGHT, NO_WAIT, NO_COMMIT, NO_BARRIER, EARLY_BARRIER, NO_LAST_BARRIER, SOURCE_CHANGES, NEVER_WAITED_FOR, WRITTEN_MEANWHILE };
/// y = x turned round, 64 threads by fours: three tiles of 64 go through two places, the next one under way while one is read.
__global__ void copy_tiles(float* x, float* y, Copying how, int shift) {
  alignas(16) __shared__ float tiles[2][64];
  const int i = int(threadIdx.x);
  const auto start = [&](int tile) {
    if (tile < 3 && i < 16) cp_async16(tiles[tile % 2] + i * 4, x + tile * 64 + i * 4 + shift, tile * 16 + i < 40);
    if (how != Copying::NO_COMMIT) cp_async_commit();
  };
  start(0);
  for (int tile = 0; tile < 3; tile++) {
    start(tile + 1);
    if (how == Copying::SOURCE_CHANGES && tile == 0) {
      __syncthreads();
      if (i == 63) x[8] += 1;
      __syncthreads();
    }
    if (how == Copying::EARLY_BARRIER) __syncthreads();
    if (how != Copying::NO_WAIT) cp_async_wait<1>();
    if (how != Copying::NO_BARRIER && how != Copying::EARLY_BARRIER) __syncthreads();
    if (how == Copying::WRITTEN_MEANWHILE && i == 5) tiles[(tile + 1) % 2][4] = 1;
    y[tile * 64 + i] = tiles[tile % 2][63 - i];
    if (how != Copying::NO_LAST_BARRIER) __syncthreads();
    if (how == Copying::NEVER_WAITED_FOR && tile == 0) return;
  }
}
void copies_beside_products() {
  Numbers n;
  const int aligned = int((16 - reinterpret_cast<uintptr_t>(n.x.data()) % 16) % 16 / 4);
  const auto run = [&](Copying how, int shift = 0) { return n.run(copy_tiles, 1, 64, n.x.data(), n.y.data(), how, aligned + shift); };
  for (int launches = 0; launches < 2; launches++) {  // forwards and backwards
    EXPECT(run(Copying::RIGHT).empty());
    for (int64_t i = 0; i < 192; i++) {
      const int64_t from = i / 64 * 64 + 63 - i % 64;
      EXPECT(n.y[i] == (from < 160 ? n.x[aligned + from] : 0));
    }
  }
  const auto refuse = [&](Copying how, const char* part, int shift = 0) {
    for (int launches = 0; launches < 2; launches++) REFUSED(run(how, shift), part);
  };
  refuse(Copying::NO_WAIT, "shared memory that a copy is under way to");
  refuse(Copying::NO_COMMIT, "shared memory that a copy is under way to");
  refuse(Copying::WRITTEN_MEANWHILE, "writes shared memory that a copy is under way to");
  refuse(Copying::NO_LAST_BARRIER, "shared memory that");  // by who writes, or by who reads too late
  refuse(Copying::NEVER_WAITED_FOR, "ends while a copy of its is under way");
  refuse(Copying::RIGHT, "no multiple", 1);
  refuse(Copying::RIGHT, "outside of the call's operands", 256);
  // Forwards, the copy has arrived or is under way; backwards, it has not begun.
  refuse(Copying::NO_BARRIER, "reads shared memory");
  refuse(Copying::EARLY_BARRIER, "reads shared memory that");
  refuse(Copying::SOURCE_CHANGES, "memory that has changed");
  EXPECT(run(Copying::RIGHT).empty());  // what was left under way is over
}

__global__ void some_multiply(const float* x, float* y, int from) {
  if (int(threadIdx.x) < from) return;
  Sums sums = {x[0], x[1], x[2], x[3]};
  const Fragment a = {};
  multiply_add(sums, a, 0, 0);
  y[threadIdx.x] = sums[0];
}
__global__ void load_from(const bf16* global, float* y, int shift, bool is_shared) {
  alignas(16) __shared__ bf16 tile[32 * 16];
  for (int i = int(threadIdx.x); i < 32 * 16; i += 32) tile[i] = bf16(float(i));
  __syncwarp();
  Fragment x;
  load_matrices(x, (is_shared ? tile : global) + threadIdx.x * 8 + shift);
  y[threadIdx.x] = float(x[0]);
}
void tensor_cores_refuse() {
  Numbers n;
  EXPECT(n.run(some_multiply, 1, 32, n.x.data(), n.y.data(), 0).empty());
  REFUSED(n.run(some_multiply, 1, 32, n.x.data(), n.y.data(), 1), "31 of 32 threads");
  const auto* const global = reinterpret_cast<const bf16*>(n.x.data());
  EXPECT(n.run(load_from, 1, 32, global, n.y.data(), 0, true).empty());
  REFUSED(n.run(load_from, 1, 32, global, n.y.data(), 4, true), "no multiple of 16");
  REFUSED(n.run(load_from, 1, 32, global, n.y.data(), 0, false), "not in shared memory");
}

int main() {
  barriers_order_shared_memory();
  races_are_refused();
  warp_barriers_order_their_warp_alone();
  memory_is_what_the_call_names();
  who_waits_for_nobody_is_told();
  warps_exchange();
  every_thread_runs_once();
  barriers_count_votes();
  dynamic_shared_memory_is_what_a_launch_asks_for();
  tensor_cores_multiply();
  tensor_cores_refuse();
  rows_lie_in_different_banks();
  copies_beside_products();
  return finish("cuda_emulator");
}
