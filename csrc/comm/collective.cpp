#include "collective.h"

#include <algorithm>

#include "../cpu/check.h"
#include "../failure.h"

namespace titan::comm {
namespace {

using cpu::elements, cpu::to_text;

/// Does it cut tensors into pieces, or take them as they are?
bool cuts(uint32_t kind) { return kind == TITAN_COMM_ALL_GATHER || kind == TITAN_COMM_REDUCE_SCATTER; }
bool reduces(uint32_t kind) { return kind == TITAN_COMM_REDUCE_SCATTER || kind == TITAN_COMM_ALL_REDUCE; }

/// The attribute words of a collective: n, the group, then (where it cuts) the dims, then (where it reduces) `by`, then (all_reduce) `last`.
struct Words {
  int64_t n = 0, by = 0, last = 0;
  const Attribute *group = nullptr, *dims = nullptr;
  int64_t group_size = 0, num_dims = 0;

  Words(uint32_t kind, const Call& call) {
    const Attribute* at = call.attributes;
    n = at++->i;
    group_size = at++->i;
    group = at;
    at += group_size;
    if (cuts(kind)) {
      num_dims = at++->i;
      dims = at;
      at += num_dims;
    }
    if (reduces(kind)) by = at++->i;
    if (kind == TITAN_COMM_ALL_REDUCE) last = at->i;
  }
};

std::string check(uint32_t kind, const Call& call) {
  const Words words(kind, call);
  if (words.group_size < 1) return "has a group of no ranks; expected: at least 1";
  for (int64_t i = 0; i < words.group_size; i++) {
    const int64_t rank = words.group[i].i;
    if (rank < 0 || rank >= int64_t{1} << 31) return text("has rank ", rank, " in its group; expected: from 0 on");
    for (int64_t j = 0; j < i; j++)
      if (words.group[j].i == rank) return text("has rank ", rank, " in its group twice; expected: different ranks");
  }
  if (words.by != 0 && words.by != 1) return text("combines by ", words.by, "; expected: 0 (sum) or 1 (max)");
  if (words.last != 0 && words.last != 1) return text("has last ", words.last, "; expected: 0, or 1 where only the last microbatch does it");
  if (cuts(kind) && words.num_dims != words.n) return text("has ", words.num_dims, " dims for ", words.n, " tensors; expected: one for each");
  for (int64_t i = 0; i < words.n; i++) {
    const Tensor &in = call[static_cast<int>(i)], &out = call[static_cast<int>(words.n + i)];
    const std::string name = text("tensor ", i);
    if (in.dtype != out.dtype || in.dtype != call[0].dtype) return text(name, " has another dtype than the first input; expected: the same for all");
    if (kind == TITAN_COMM_RING_SHIFT) {
      for (const Tensor* t : {&in, &out})
        if (t->rank != 2 || (t->dims[1] > 1 && t->strides[1] != 1) || (t->dims[0] > 1 && t->strides[0] < t->dims[1])) return text(name, " is not rows without gaps; expected: two dims, the last of stride 1");
    } else if (!cpu::is_dense(in) || !cpu::is_dense(out)) return text(name, " is not dense; expected: unbroken row-major runs");
    if (words.last && in.data != out.data) return text(name, " is reduced in the last microbatch alone, but not in place; expected: one place, since else nothing is done");
    std::vector<int64_t> expected(in.dims, in.dims + in.rank);
    if (cuts(kind)) {
      const int64_t dim = words.dims[i].i;
      if (dim < 0 || dim >= in.rank) return text(name, " is cut along dim ", dim, " of ", in.rank, "; expected: one that it has");
      int64_t& size = expected[static_cast<size_t>(dim)];
      if (kind == TITAN_COMM_REDUCE_SCATTER && size % words.group_size) return text(name, " has ", size, " along dim ", dim, "; expected: a multiple of the ", words.group_size, " ranks");
      size = kind == TITAN_COMM_ALL_GATHER ? size * words.group_size : size / words.group_size;
    }
    if (kind != TITAN_COMM_ALL_REDUCE && in.data == out.data && elements(in)) return text(name, " is made in place; expected: memory of its own");
    if (out.rank != in.rank || !std::equal(expected.begin(), expected.end(), out.dims))
      return text(name, " becomes ", to_text(out.dims, out.rank), "; expected: ", to_text(expected.data(), in.rank));
  }
  return "";
}

std::string check_all_gather(const Call& call) { return check(TITAN_COMM_ALL_GATHER, call); }
std::string check_reduce_scatter(const Call& call) { return check(TITAN_COMM_REDUCE_SCATTER, call); }
std::string check_all_reduce(const Call& call) { return check(TITAN_COMM_ALL_REDUCE, call); }
std::string check_ring_shift(const Call& call) { return check(TITAN_COMM_RING_SHIFT, call); }

}  // namespace

const Kernel COLLECTIVES[] = {
#define KERNEL(name, operands, attributes, dtypes)
#define MAP(name, arity)
#define COLLECTIVE(name, operands, attributes, dtypes) {#name, check_##name, nullptr},
#include "../kernels.def"
#undef KERNEL
#undef MAP
};
const int NUM_COLLECTIVES = sizeof COLLECTIVES / sizeof *COLLECTIVES;

Collective read_collective(int index, const Call& call) {
  const auto kind = static_cast<uint32_t>(index);
  const Words words(kind, call);
  Collective collective;
  for (int64_t i = 0; i < words.group_size; i++) collective.ranks.push_back(static_cast<int>(words.group[i].i));
  for (int64_t i = 0; i < words.n; i++) {
    const Tensor &in = call[static_cast<int>(i)], &out = call[static_cast<int>(words.n + i)];
    titan_comm_tensor tensor{in.data, out.data, 1, static_cast<uint64_t>(elements(in)), 0, 0};
    if (kind == TITAN_COMM_RING_SHIFT) {
      tensor.outer = static_cast<uint64_t>(in.dims[0]), tensor.chunk = static_cast<uint64_t>(in.dims[1]);
      tensor.in_step = static_cast<uint64_t>(in.strides[0]), tensor.out_step = static_cast<uint64_t>(out.strides[0]);
    }
    if (cuts(kind)) {
      const Tensor& part = kind == TITAN_COMM_ALL_GATHER ? in : out;
      for (int64_t d = 0; d < words.dims[i].i; d++) tensor.outer *= static_cast<uint64_t>(part.dims[d]);
      tensor.chunk = tensor.outer ? static_cast<uint64_t>(elements(part)) / tensor.outer : 0;
    }
    collective.tensors.push_back(tensor);
    collective.bytes += static_cast<uint64_t>(elements(in)) * size_of(in.dtype);
  }
  collective.call = {kind, static_cast<uint32_t>(call[0].dtype), static_cast<uint32_t>(words.by), static_cast<uint32_t>(words.n), nullptr};
  collective.last = words.last == 1;
  return collective;
}

}  // namespace titan::comm
