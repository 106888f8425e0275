// embedding copies rows; its gradient sums the rows of repeated ids in order; ids out of range give NaN rows and read nothing; slices of a table
// add up to what the whole gives.
#include "test.h"

using namespace titan;
using namespace titan::test;

template <class real>
void embed(int64_t N, int64_t V, int64_t D) {
  Array<int32_t> ids({N}, {2});
  ids.fill([&](int64_t n) { return double(n * n % V); });
  if (N > 3) ids[2] = int32_t(V), ids[3] = -1;
  Array<real> table({V, D}), y({N, D}, {D + 5, 1}), dy({N, D}, {D + 1, 1}), start({V, D});
  table.random(1), dy.random(2), start.random(3);
  CallBuilder call;
  call.add(ids).add(table).add(y).integer(0).integer(V);
  RUN(call, embedding, 2);
  for (int64_t n = 0; n < N; n++)
    for (int64_t d = 0; d < D; d++) {
      const bool inside = ids[n] >= 0 && ids[n] < V;
      EXPECT(inside ? y[n * D + d] == table[ids[n] * D + d] : std::isnan(y[n * D + d]));
    }
  EXPECT(y.guarded());
  for (int accumulate : {0, 1, 2}) {
    Array<real> one = start, two = start, expected = start;
    for (auto* dtable : {&one, &two}) {
      CallBuilder backward;
      backward.add(ids).add(dy).add(*dtable).integer(accumulate).integer(0);
      backward.flags = FLAG_FIRST;
      RUN(backward, embedding_backward, dtable == &one ? 1 : 2);
    }
    if (accumulate != 1) expected.fill([](int64_t) { return 0; });
    for (int64_t n = 0; n < N; n++)
      if (ids[n] >= 0 && ids[n] < V)
        for (int64_t d = 0; d < D; d++) expected[ids[n] * D + d] += dy[n * D + d];
    EXPECT(one == two);
    EXPECT(one == expected);
  }
}

/// Rows start to start + V of a table of `whole`: rows of other slices are 0, and gradients are those of the whole table's rows.
template <class real>
void slice(int64_t N, int64_t start, int64_t V, int64_t whole, int64_t D) {
  Array<int32_t> ids({N});
  ids.fill([&](int64_t n) { return double(n % (whole + 2) - 1); });
  Array<real> table({whole, D}), part({V, D}), y({N, D}), dy({N, D}), dtable({whole, D}), dpart({V, D});
  table.random(1), dy.random(2);
  part.fill([&](int64_t i) { return double(table[start * D + i]); });
  CallBuilder call, outside, backward, backward_whole;
  call.add(ids).add(part).add(y).integer(start).integer(whole);
  RUN(call, embedding, 2);
  for (int64_t n = 0; n < N; n++)
    for (int64_t d = 0; d < D; d++) {
      const bool own = ids[n] >= start && ids[n] < start + V, exists = ids[n] >= 0 && ids[n] < whole;
      EXPECT(exists ? y[n * D + d] == (own ? table[ids[n] * D + d] : 0) : std::isnan(y[n * D + d]));
    }
  backward.add(ids).add(dy).add(dpart).integer(0).integer(start);
  RUN(backward, embedding_backward, 2);
  backward_whole.add(ids).add(dy).add(dtable).integer(0).integer(0);
  RUN(backward_whole, embedding_backward, 2);
  for (int64_t i = 0; i < V * D; i++) EXPECT(dpart[i] == dtable[start * D + i]);
  outside.add(ids).add(part).add(y).integer(start + 1).integer(start + V);
  EXPECT(REFUSAL(outside, embedding).find("expected: rows of the whole table") != std::string::npos);
}

template <class real>
void all() {
  slice<real>(40, 0, 3, 9, 5);
  slice<real>(40, 3, 3, 9, 5);
  slice<real>(40, 6, 3, 9, 5);
  embed<real>(1, 1, 1);
  embed<real>(20, 7, 19);
  embed<real>(100, 50, 256);
  embed<real>(1100, 40, 3);  // more ids than the threads of a block look at between two barriers
}

int main() {
  all<float>();
  all<double>();
  return finish("embedding");
}
