// Attention forward with products of bf16 (the attribute bf16 is 1), on tensor cores; operands and formulas are those of attention.cu.
// FlashAttention-2's scheme: a block of 8 warps has 128 queries of one head in shared memory, each warp 16 of them, and their sums in registers; tiles of
// keys and values (64; 32 for heads of more than 128 numbers) go through shared memory, where the next ones arrive while these are multiplied. Scores never
// leave registers: rounded, they are the left operand of the second product. A warp leaves out tiles that none of its queries sees, a block those that no
// query of it sees, before they are loaded.
// Rounded are scale log2(e) rope(q), rope(k), v and the unnormalized probabilities; maxima, sums and o are f32.
// Compute-bound: 4 K operations of a visible pair. A block reads, of keys and values, 4 K bytes (stored as bf16) for the 512 K operations of a key:
// 128 operations for each byte, which come from the L2 cache but for the first time.
// Under way meanwhile, for heads of up to 64, 128 and 256 numbers: 16, 32 and 16 KiB of a block; the last is one tile, as there is no room for two of each
// kind. A thread waits, as ever, for positions and documents, and for angles where keys have to be turned.
// Registers on sm_90: 128, 182, 244; shared memory 48, 96, 96 KiB. So two blocks, one and one, 16, 8 and 8 of 64 warps, are on a multiprocessor at a time.
// A query is summed in the order of its keys, in tiles that depend on the head size alone. Scratch is not used.
#include "../attention_mma.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

template <class tiles>
__global__ void __launch_bounds__(tiles::THREADS, tiles::P <= 64 ? 2 : 1) attention(MmaAttention c, Heads<float> other_o, Heads<float> other_lse, Heads<float> o, Heads<float> lse) {
  const typename tiles::Rows q(dynamic_shared());
  const Held<tiles> k{q + tiles::ROWS, {c, c.k, c.k_copied, c.keys, true, 1}}, v{k.memory + tiles::HELD, {c, c.v, c.v_copied, c.keys, false, 1}};
  const Rounded from{c, c.q, c.q_copied, c.queries, true, c.scale * float(LOG2E)};
  const int query_tiles = int((c.T + tiles::ROWS - 1) / tiles::ROWS), heads = int(c.H), num_tasks = int(c.B) * heads * query_tiles;
  for (int task = int(blockIdx.x); task < num_tasks; task += int(gridDim.x)) {
    // The last queries, which see most keys where positions ascend, go first.
    const int first = (query_tiles - 1 - task % query_tiles) * tiles::ROWS, h = task / query_tiles % heads, b = task / query_tiles / heads, g = h / int(c.H / c.G);
    __syncthreads();
    start_rows<tiles, tiles::ROWS>(q, from, b, h, first);
    cp_async_commit();
    const RowTokens<tiles, true> queries(c, b, first);
    cp_async_wait<0>();
    finish_rows<tiles, tiles::ROWS>(q, from, b, first);
    // Sums over keys are of the thread's columns alone until all keys are there.
    float most[2] = {-1e30f, -1e30f}, sum[2] = {0, 0};
    typename tiles::Outputs output;
    TITAN_UNROLL
    for (int n = 0; n < tiles::P / 8; n++) output[n][0] = output[n][1] = output[n][2] = output[n][3] = 0;
    TITAN_UNROLL
    for (int which = 0; which < 2; which++) {
      if (!other_o.elements.data || !queries.exists[which]) continue;
      const int t = first + tiles::row(which);
      const float natural = other_lse.at(b, t, h)[0];
      if (natural == -std::numeric_limits<float>::infinity()) continue;
      most[which] = natural * float(LOG2E), sum[which] = tiles::column(0, 0) == 0;
      const Elements<float> from = other_o.at(b, t, h);
      TITAN_UNROLL
      for (int n = 0; n < tiles::P / 8; n++)
        if (const int column = tiles::column(n, 0); column < c.K) output[n][2 * which] = from[column], output[n][2 * which + 1] = from[column + 1];
    }
    typename tiles::Weights weights;
    const auto use_keys = [&](uint32_t seen, int turn) {
      typename tiles::Scores scores;
      multiply_rows<tiles>(scores, q, k[turn], c.width);
      float largest[2] = {most[0], most[1]};
      TITAN_UNROLL
      for (int n = 0; n < tiles::OTHERS / 8; n++)
        TITAN_UNROLL
        for (int i = 0; i < 4; i++) {
          if (!(seen >> (4 * n + i) & 1)) scores[n][i] = -std::numeric_limits<float>::infinity();
          largest[i / 2] = Max()(largest[i / 2], scores[n][i]);
        }
      float rescale[2];
      TITAN_UNROLL
      for (int which = 0; which < 2; which++) {
        largest[which] = join_quad(largest[which], Max());
        rescale[which] = std::exp2(most[which] - largest[which]);
        most[which] = largest[which], sum[which] *= rescale[which];
      }
      TITAN_UNROLL
      for (int n = 0; n < tiles::OTHERS / 8; n++)
        TITAN_UNROLL
        for (int i = 0; i < 4; i++) sum[i / 2] += scores[n][i] = std::exp2(scores[n][i] - most[i / 2]);
      TITAN_UNROLL
      for (int n = 0; n < tiles::P / 8; n++)
        TITAN_UNROLL
        for (int i = 0; i < 4; i++) output[n][i] *= rescale[i / 2];
      round_scores<tiles>(weights, scores);
    };
    const auto use_values = [&](uint32_t, int turn) { add_weighted<tiles>(output, weights, v[turn], c.width); };
    const auto place = [&](int i) { return TilePlace{g, i * tiles::OTHERS}; };
    walk<tiles>(b, int((c.S + tiles::OTHERS - 1) / tiles::OTHERS), k, v, place, [&](int begin) { return queries.seen(c, begin); }, [](int, TilePlace) {}, use_keys, use_values);
    TITAN_UNROLL
    for (int which = 0; which < 2; which++) {
      const float total = join_quad(sum[which], Sum());
      if (!queries.exists[which]) continue;
      const int t = first + tiles::row(which);
      store_sums<tiles>(o.at(b, t, h), output, which, c, total == 0 ? 0 : 1 / total, nullptr);
      if (tiles::column(0, 0) == 0) lse.at(b, t, h).put(0, most[which] * float(LN2) + std::log(total));
    }
  }
}

template <class tiles>
void attend(const Call& call) {
  const MmaAttention c(call, 3, {11});
  const bool other = call[9].data;
  const unsigned blocks = blocks_for(c.B * c.H * ((c.T + tiles::ROWS - 1) / tiles::ROWS), 1);
  launch(attention<tiles>, {blocks, tiles::THREADS, (tiles::ROWS + 2 * tiles::HELD) * tiles::Rows::BYTES}, call, c, Heads<float>(call[9], other), Heads<float>(call[10], other), Heads<float>(call[11]),
         Heads<float>(call[12]));
}

}  // namespace

void attend_on_tensor_cores(const Call& call) {
  if (const int64_t K = call[0].dims[3]; K <= 64) attend<MmaTiles<64, 8, 64, true>>(call);
  else if (K <= 128) attend<MmaTiles<128, 8, 64, true>>(call);
  else attend<MmaTiles<256, 8, 32, false>>(call);
}

}  // namespace titan::cuda
