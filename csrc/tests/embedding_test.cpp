// embedding copies rows; its gradient sums the rows of repeated ids in order; ids out of range give NaN rows and read nothing.
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
  call.add(ids).add(table).add(y);
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
      backward.add(ids).add(dy).add(*dtable).integer(accumulate);
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

template <class real>
void all() {
  embed<real>(1, 1, 1);
  embed<real>(20, 7, 19);
  embed<real>(100, 50, 256);
}

int main() {
  all<float>();
  all<double>();
  return finish("embedding");
}
