#include "collective.h"

#include <algorithm>

#include "../cpu/check.h"
#include "../failure.h"
#include "../signature.h"

namespace titan::comm {
namespace {

using cpu::elements, cpu::to_text;

/// Does it cut tensors into pieces along one dim, or take them as they are?
bool cuts(uint32_t kind) { return kind == titan_comm_all_gather || kind == titan_comm_reduce_scatter; }

/// An array among the attributes.
struct List {
  const Attribute* words = nullptr;
  int64_t size = 0;
  int64_t operator[](int64_t i) const { return words[i].i; }
};

/// The attributes of a collective, by their names in kernels.def.
struct Attributes {
  int64_t n = 0, by = 0, first = 0, last = 0, inputs = 0, member = -1;
  List group, dims, splits, joins, from, to, bytes;

  Attributes(uint32_t kind, const Call& call) {
    const Signature& signature = signatures()[signatures().size() - static_cast<size_t>(NUM_COLLECTIVES) + kind];
    const Attribute* at = call.attributes;
    for (const auto& attribute : signature.attributes) {
      const int64_t word = at++->i;
      if (!attribute.array) {
        *number(attribute.name) = word;
      } else {
        *list(attribute.name) = {at, word};
        at += word;
      }
    }
  }

 private:
  int64_t* number(const std::string& name) { return name == "n" ? &n : name == "by" ? &by : name == "first" ? &first : name == "last" ? &last : name == "inputs" ? &inputs : &member; }
  List* list(const std::string& name) {
    return name == "group" ? &group : name == "dims" ? &dims : name == "splits" ? &splits : name == "joins" ? &joins : name == "from" ? &from : name == "to" ? &to : &bytes;
  }
};

std::string check_group(const List& group) {
  if (group.size < 1) return "has a group of no ranks; expected: at least 1";
  for (int64_t i = 0; i < group.size; i++) {
    const int64_t rank = group[i];
    if (rank < 0 || rank >= int64_t{1} << 31) return text("has rank ", rank, " in its group; expected: from 0 on");
    for (int64_t j = 0; j < i; j++)
      if (group[j] == rank) return text("has rank ", rank, " in its group twice; expected: different ranks");
  }
  return "";
}

/// What is wrong with a list that has one dim for each tensor.
std::string check_dims(const List& dims, const Attributes& own, const char* what, int64_t i, int rank) {
  if (dims.size != own.n) return text("has ", dims.size, " dims for ", own.n, " tensors; expected: one for each");
  if (dims[i] < 0 || dims[i] >= rank) return text("tensor ", i, " is ", what, " along dim ", dims[i], " of ", rank, "; expected: one that it has");
  return "";
}

std::string check(uint32_t kind, const Call& call) {
  const Attributes own(kind, call);
  if (const std::string why = check_group(own.group); !why.empty()) return why;
  if (own.by != 0 && own.by != 1) return text("combines by ", own.by, "; expected: 0 (sum) or 1 (max)");
  if (own.first != 0 && own.first != 1) return text("has first ", own.first, "; expected: 0, or 1 where only the first microbatch does it");
  if (own.last != 0 && own.last != 1) return text("has last ", own.last, "; expected: 0, or 1 where only the last microbatch does it");
  for (int64_t i = 0; i < own.n; i++) {
    const Tensor &in = call[static_cast<int>(i)], &out = call[static_cast<int>(own.n + i)];
    const std::string name = text("tensor ", i);
    if (in.dtype != out.dtype || in.dtype != call[0].dtype) return text(name, " has another dtype than the first input; expected: the same for all");
    if (kind == titan_comm_ring_shift) {
      for (const Tensor* t : {&in, &out})
        if (t->rank != 2 || (t->dims[1] > 1 && t->strides[1] != 1) || (t->dims[0] > 1 && t->strides[0] < t->dims[1])) return text(name, " is not rows without gaps; expected: two dims, the last of stride 1");
    } else if (!cpu::is_dense(in) || !cpu::is_dense(out)) return text(name, " is not dense; expected: unbroken row-major runs");
    if (own.last && in.data != out.data) return text(name, " is reduced in the last microbatch alone, but not in place; expected: one place, since else nothing is done");
    std::vector<int64_t> expected(in.dims, in.dims + in.rank);
    const auto cut = [&](int64_t dim) {
      int64_t& size = expected[static_cast<size_t>(dim)];
      if (size % own.group.size) return text(name, " has ", size, " along dim ", dim, "; expected: a multiple of the ", own.group.size, " ranks");
      size /= own.group.size;
      return std::string();
    };
    const auto join = [&](int64_t dim) { expected[static_cast<size_t>(dim)] *= own.group.size; };
    std::string why;
    if (cuts(kind)) {
      why = check_dims(own.dims, own, "cut", i, in.rank);
      if (why.empty() && kind == titan_comm_all_gather) join(own.dims[i]);
      else if (why.empty()) why = cut(own.dims[i]);
    } else if (kind == titan_comm_all_to_all) {
      why = check_dims(own.splits, own, "cut", i, in.rank);
      if (why.empty()) why = check_dims(own.joins, own, "joined", i, in.rank);
      if (why.empty() && own.splits[i] == own.joins[i]) why = text(name, " is cut and joined along dim ", own.splits[i], "; expected: two dims");
      if (why.empty()) why = cut(own.splits[i]);
      if (why.empty()) join(own.joins[i]);
    }
    if (!why.empty()) return why;
    if (kind != titan_comm_all_reduce && in.data == out.data && elements(in)) return text(name, " is made in place; expected: memory of its own");
    if (out.rank != in.rank || !std::equal(expected.begin(), expected.end(), out.dims))
      return text(name, " becomes ", to_text(out.dims, out.rank), "; expected: ", to_text(expected.data(), in.rank));
  }
  return "";
}

uint64_t bytes_of(const Tensor& tensor) { return static_cast<uint64_t>(elements(tensor)) * size_of(tensor.dtype); }

/// Calls each(tensor of the list, operand, is it sent?) for what a member of an exchange sends and receives, in the order of the list.
template <class Each> void each_own(const Attributes& own, Each each) {
  int sent = 0, received = static_cast<int>(own.inputs);
  for (int64_t i = 0; i < own.from.size; i++)
    if (own.from[i] == own.member) each(i, sent++, true);
    else if (own.to[i] == own.member) each(i, received++, false);
}

std::string check_exchange(const Call& call) {
  const Attributes own(titan_comm_exchange, call);
  if (const std::string why = check_group(own.group); !why.empty()) return why;
  if (own.member < 0 || own.member >= own.group.size) return text("is that of member ", own.member, "; expected: one of the ", own.group.size, " of its group");
  if (own.from.size != own.to.size || own.from.size != own.bytes.size)
    return text("sends ", own.bytes.size, " tensors from ", own.from.size, " members to ", own.to.size, "; expected: one of each for every tensor");
  int64_t sent = 0, received = 0;
  for (int64_t i = 0; i < own.from.size; i++) {
    for (const int64_t member : {own.from[i], own.to[i]})
      if (member < 0 || member >= own.group.size) return text("tensor ", i, " is for member ", member, "; expected: one of the ", own.group.size, " of its group");
    if (own.from[i] == own.to[i]) return text("tensor ", i, " goes from member ", own.from[i], " to itself; expected: to another");
    if (own.bytes[i] < 0 || own.bytes[i] > int64_t{1} << 46) return text("tensor ", i, " has ", own.bytes[i], " bytes; expected: 0 to 2^46");
    sent += own.from[i] == own.member, received += own.to[i] == own.member;
  }
  if (sent != own.inputs || received != call.num_operands - own.inputs)
    return text("member ", own.member, " has ", own.inputs, " tensors to send and ", call.num_operands - own.inputs, " to receive; expected: ", sent, " and ", received);
  std::string why;
  each_own(own, [&](int64_t i, int operand, bool) {
    const Tensor& tensor = call[operand];
    if (!why.empty()) return;
    if (!cpu::is_dense(tensor)) why = text("tensor ", i, " is not dense; expected: unbroken row-major runs");
    else if (bytes_of(tensor) != static_cast<uint64_t>(own.bytes[i])) why = text("tensor ", i, " has ", bytes_of(tensor), " bytes; expected: ", own.bytes[i]);
  });
  return why;
}

std::string check_all_gather(const Call& call) { return check(titan_comm_all_gather, call); }
std::string check_reduce_scatter(const Call& call) { return check(titan_comm_reduce_scatter, call); }
std::string check_all_reduce(const Call& call) { return check(titan_comm_all_reduce, call); }
std::string check_ring_shift(const Call& call) { return check(titan_comm_ring_shift, call); }
std::string check_all_to_all(const Call& call) { return check(titan_comm_all_to_all, call); }

}  // namespace

const Kernel COLLECTIVES[] = {
#define KERNEL(name, operands, attributes, dtypes)
#define MAP(name, arity)
#define COLLECTIVE(name, operands, attributes, dtypes) {#name, check_##name, nullptr},
#include "../kernels.def"
#undef KERNEL
#undef MAP
};

void Collective::move(const char* slots, uint64_t slot_bytes, uint64_t to) {
  if (to == slot || !slot_bytes) return;
  const auto by = static_cast<ptrdiff_t>((to - slot) * slot_bytes);  // the arena has nothing behind its slots
  for (titan_comm_tensor& tensor : tensors) {
    if (tensor.in >= slots) tensor.in = static_cast<const char*>(tensor.in) + by;
    if (tensor.out >= slots) tensor.out = static_cast<char*>(tensor.out) + by;
  }
  slot = to;
}

uint64_t Collective::messages() const {
  const uint64_t others = ranks.size() - 1;
  switch (call.kind) {
    case titan_comm_ring_shift: return std::min<uint64_t>(1, others);
    case titan_comm_all_reduce: return 2 * others;
    case titan_comm_exchange: return static_cast<uint64_t>(std::count_if(tensors.begin(), tensors.end(), [](const titan_comm_tensor& tensor) { return tensor.in; }));
    default: return others;
  }
}

double Collective::sent_bytes() const {
  const double all = static_cast<double>(bytes);
  if (call.kind == titan_comm_exchange) return all;
  const double sent = all * static_cast<double>(messages());
  return call.kind == titan_comm_all_gather || call.kind == titan_comm_ring_shift ? sent : sent / static_cast<double>(ranks.size());
}

uint64_t Collective::link_ns(double bytes_per_second, uint64_t latency_ns) const {
  double most = sent_bytes();
  uint64_t count = messages();
  if (call.kind == titan_comm_exchange) {
    double received = 0;
    uint64_t arrivals = 0;
    for (const titan_comm_tensor& tensor : tensors)
      if (tensor.out) received += static_cast<double>(tensor.chunk), arrivals++;
    most = std::max(most, received);
    count = std::max(count, arrivals);
  }
  return static_cast<uint64_t>(most / bytes_per_second * 1e9) + count * latency_ns;
}

Collective read_collective(int index, const Call& call) {
  const auto kind = static_cast<uint32_t>(index);
  const Attributes own(kind, call);
  Collective collective;
  for (int64_t i = 0; i < own.group.size; i++) collective.ranks.push_back(static_cast<int>(own.group[i]));
  if (kind == titan_comm_exchange) {
    for (int64_t i = 0; i < own.bytes.size; i++)
      collective.tensors.push_back({nullptr, nullptr, 1, static_cast<uint64_t>(own.bytes[i]), 0, 0, 0, 0, static_cast<uint32_t>(own.from[i]), static_cast<uint32_t>(own.to[i])});
    each_own(own, [&](int64_t i, int operand, bool sent) {
      titan_comm_tensor& tensor = collective.tensors[static_cast<size_t>(i)];
      if (!sent) tensor.out = call[operand].data;
      else tensor.in = call[operand].data, collective.bytes += tensor.chunk;
    });
    collective.member = static_cast<int>(own.member);
    collective.call = {kind, static_cast<uint32_t>(DType::bytes), 0, static_cast<uint32_t>(own.bytes.size), nullptr};
    return collective;
  }
  for (int64_t i = 0; i < own.n; i++) {
    const Tensor &in = call[static_cast<int>(i)], &out = call[static_cast<int>(own.n + i)];
    titan_comm_tensor tensor{in.data, out.data, 1, static_cast<uint64_t>(elements(in)), 0, 0, 0, 0, 0, 0};
    if (kind == titan_comm_ring_shift) {
      tensor.outer = static_cast<uint64_t>(in.dims[0]), tensor.chunk = static_cast<uint64_t>(in.dims[1]);
      tensor.in_step = static_cast<uint64_t>(in.strides[0]), tensor.out_step = static_cast<uint64_t>(out.strides[0]);
    }
    if (cuts(kind)) {
      const Tensor& part = kind == titan_comm_all_gather ? in : out;
      for (int64_t d = 0; d < own.dims[i]; d++) tensor.outer *= static_cast<uint64_t>(part.dims[d]);
      tensor.chunk = tensor.outer ? static_cast<uint64_t>(elements(part)) / tensor.outer : 0;
    }
    if (kind == titan_comm_all_to_all) {
      // A piece has the dims of `out` where it is cut, and those of `in` where pieces are joined.
      tensor.in_run = tensor.out_run = 1;
      for (int64_t d = in.rank - 1; d >= 0; d--) {
        const auto size = static_cast<uint64_t>(std::min(in.dims[d], out.dims[d]));
        if (d >= own.splits[i]) tensor.in_run *= size;
        if (d >= own.joins[i]) tensor.out_run *= size;
      }
      tensor.chunk = std::min(tensor.in_run, tensor.out_run);
      tensor.outer = tensor.chunk ? static_cast<uint64_t>(elements(in) / own.group.size) / tensor.chunk : 0;
    }
    collective.tensors.push_back(tensor);
    collective.bytes += bytes_of(in);
  }
  collective.call = {kind, static_cast<uint32_t>(call[0].dtype), static_cast<uint32_t>(own.by), static_cast<uint32_t>(own.n), nullptr};
  collective.first = own.first == 1;
  collective.last = own.last == 1;
  return collective;
}

}  // namespace titan::comm
