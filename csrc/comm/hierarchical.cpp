#include "hierarchical.h"

#include <algorithm>
#include <cstring>

#include "combine.h"
#include "pieces.h"

namespace titan::comm {
namespace {

titan_comm_tensor message(const char* in, char* out, int64_t bytes, int from, int to) {
  return {in, out, 1, static_cast<uint64_t>(bytes), 0, 0, 0, 0, static_cast<uint32_t>(from), static_cast<uint32_t>(to)};
}

}  // namespace

Hierarchical::Hierarchical(const std::vector<int>& host_of, int self, SharedGroup local)
    : size_(static_cast<int>(host_of.size())), self_(self), local_(std::move(local)), place_(host_of.size()) {
  std::vector<int> names;  // of the hosts, in the order of their first members
  for (int m = 0; m < size_; m++) {
    const int name = host_of[static_cast<size_t>(m)];
    const auto host = static_cast<size_t>(std::find(names.begin(), names.end(), name) - names.begin());
    if (host == names.size()) names.push_back(name), hosts_.emplace_back();
    if (m == self) host_ = host;
    place_[static_cast<size_t>(m)] = static_cast<int>(hosts_[host].size());
    hosts_[host].push_back(m);
  }
  for (size_t host = 0; host < hosts_.size(); host++)
    for (const int m : hosts_[host])
      if (host != host_ && partner(host_, m) == self_) handled_.push_back(m);
  num_slots_ = handled_.size() + hosts_.size();
  parts_.resize(std::max(hosts_.size(), hosts_[host_].size()));
  list_.reserve(num_slots_);
}

bool Hierarchical::is_worth(const std::vector<int>& host_of) {
  const auto first = std::count(host_of.begin(), host_of.end(), host_of[0]);
  const bool spans = first < static_cast<std::ptrdiff_t>(host_of.size());
  return spans && std::any_of(host_of.begin(), host_of.end(), [&](int host) { return std::count(host_of.begin(), host_of.end(), host) > 1; });
}

int64_t Hierarchical::elements(const titan_comm_tensor& tensor, int member) const {
  if (call_.kind != titan_comm_all_reduce) return static_cast<int64_t>(tensor.outer * tensor.chunk);
  const auto n = static_cast<uint64_t>(size_), m = static_cast<uint64_t>(member);
  return static_cast<int64_t>(piece_start(tensor.chunk, n, m + 1) - piece_start(tensor.chunk, n, m));
}

int64_t Hierarchical::count(const Stage& stage, int member) const {
  return std::clamp<int64_t>(elements(call_.tensors[stage.tensor], member) - stage.start, 0, stage_elements(size_, partial_bytes_));
}

/// Calls each(byte offset behind `start` of the piece, byte offset in the whole, bytes) for where a part of a member's piece lies.
template <class Each> void Hierarchical::each_run_of(const titan_comm_tensor& tensor, int member, int64_t start, int64_t count, Each each) const {
  if (call_.kind == titan_comm_all_reduce) {
    const auto first = static_cast<int64_t>(piece_start(tensor.chunk, static_cast<uint64_t>(size_), static_cast<uint64_t>(member)));
    each(int64_t{0}, (first + start) * bytes_, count * bytes_);
  } else {
    const int64_t piece = member * static_cast<int64_t>(tensor.chunk) * bytes_;
    each_run(tensor.chunk, size_, bytes_, start, count, [&](int64_t part, int64_t whole, int64_t n) { each(part - start * bytes_, piece + whole, n); });
  }
}

char* Hierarchical::own_piece(const titan_comm_tensor& tensor) const {
  auto* out = static_cast<char*>(tensor.out);
  return call_.kind == titan_comm_all_reduce ? out + static_cast<int64_t>(piece_start(tensor.chunk, static_cast<uint64_t>(size_), static_cast<uint64_t>(self_))) * bytes_ : out;
}

/// What the ranks of this host have for a member, as a partial sum.
void Hierarchical::add_local(const Stage& stage, int member, char* to) {
  const size_t locals = hosts_[host_].size();
  each_run_of(call_.tensors[stage.tensor], member, stage.start, count(stage, member), [&](int64_t part, int64_t whole, int64_t n) {
    for (size_t m = 0; m < locals; m++) parts_[m] = local_.in_of(m, stage.tensor) + whole;
    combine_to_partial(DType{call_.dtype}, call_.by, parts_.data(), static_cast<int>(locals), to + part / bytes_ * partial_bytes_, n / bytes_);
  });
}

/// This host's sums go to the members elsewhere that they are for, and this member's come from each other host.
void Hierarchical::begin_reduce(uint64_t number) {
  const Stage& stage = stages_[number];
  size_t used = hosts_.size();
  for (const int m : handled_)
    if (const int64_t n = count(stage, m)) {
      char* const to = slot(number, used++);
      add_local(stage, m, to);
      list_.push_back(message(to, nullptr, n * partial_bytes_, self_, m));
    }
  if (const int64_t n = count(stage, self_))
    for (size_t host = 0; host < hosts_.size(); host++)
      if (host != host_) list_.push_back(message(nullptr, slot(number, host), n * partial_bytes_, partner(host, self_), self_));
}

void Hierarchical::end_reduce(uint64_t number) {
  const Stage& stage = stages_[number];
  const int64_t n = count(stage, self_);
  if (!n) return;
  add_local(stage, self_, slot(number, host_));
  for (size_t host = 0; host < hosts_.size(); host++) parts_[host] = slot(number, host);
  combine_partials(DType{call_.dtype}, call_.by, parts_.data(), static_cast<int>(hosts_.size()), own_piece(call_.tensors[stage.tensor]) + stage.start * bytes_, n);
}

/// This member's piece goes to one member of each other host, and some of theirs come.
void Hierarchical::begin_gather(uint64_t number) {
  const Stage& stage = stages_[number];
  const titan_comm_tensor& tensor = call_.tensors[stage.tensor];
  const char* from = call_.kind == titan_comm_all_reduce ? own_piece(tensor) : static_cast<const char*>(tensor.in);
  if (const int64_t n = count(stage, self_))
    for (size_t host = 0; host < hosts_.size(); host++)
      if (host != host_) list_.push_back(message(from + stage.start * bytes_, nullptr, n * bytes_, self_, partner(host, self_)));
  for (size_t i = 0; i < handled_.size(); i++)
    if (const int64_t n = count(stage, handled_[i])) {
      char* to = slot(number, i);
      if (lies_dense(tensor)) each_run_of(tensor, handled_[i], stage.start, n, [&](int64_t, int64_t whole, int64_t) { to = static_cast<char*>(tensor.out) + whole; });
      list_.push_back(message(nullptr, to, n * bytes_, handled_[i], self_));
    }
}

void Hierarchical::end_gather(uint64_t number) {
  const Stage& stage = stages_[number];
  const titan_comm_tensor& tensor = call_.tensors[stage.tensor];
  if (lies_dense(tensor)) return;
  for (size_t i = 0; i < handled_.size(); i++)
    each_run_of(tensor, handled_[i], stage.start, count(stage, handled_[i]), [&](int64_t part, int64_t whole, int64_t n) {
      std::memcpy(static_cast<char*>(tensor.out) + whole, slot(number, i) + part, static_cast<size_t>(n));
    });
}

/// The pieces of this host's ranks, and those that others of them have received.
void Hierarchical::copy_from_local() {
  for (uint32_t i = 0; i < call_.num_tensors; i++) {
    const titan_comm_tensor& tensor = call_.tensors[i];
    if (!tensor.outer || !tensor.chunk) continue;
    for (size_t host = 0; host < hosts_.size(); host++)
      for (const int m : hosts_[host]) {
        const int holder = partner(host_, m); // of this host's own members each holds its own
        const auto at = static_cast<size_t>(place_[static_cast<size_t>(holder)]);
        const bool is_part = host == host_ && call_.kind == titan_comm_all_gather;
        if (holder == self_ && !is_part) continue;
        const char* from = is_part ? local_.in_of(at, i) : local_.out_of(at, i);
        each_run_of(tensor, m, 0, elements(tensor, m), [&](int64_t part, int64_t whole, int64_t n) {
          std::memcpy(static_cast<char*>(tensor.out) + whole, from + (is_part ? part : whole), static_cast<size_t>(n));
        });
      }
  }
}

titan_comm_result Hierarchical::travel(const Messages& messages, void (Hierarchical::*begin)(uint64_t), void (Hierarchical::*end)(uint64_t), std::string* error) {
  struct Context { Hierarchical* self; void (Hierarchical::*begin)(uint64_t); void (Hierarchical::*end)(uint64_t); } context = {this, begin, end};
  const titan_comm_stages stages = {
      stages_.size(),
      [](void* c, uint64_t stage, const titan_comm_tensor** tensors) {
        const Context& own = *static_cast<Context*>(c);
        own.self->list_.clear();
        (own.self->*own.begin)(stage);
        *tensors = own.self->list_.data();
        return static_cast<uint32_t>(own.self->list_.size());
      },
      [](void* c, uint64_t stage) {
        const Context& own = *static_cast<Context*>(c);
        (own.self->*own.end)(stage);
      },
      &context};
  char why[TITAN_COMM_TEXT] = {};
  const auto result = static_cast<titan_comm_result>(messages.module.run_stages(messages.group, &stages, &messages.wait, why));
  if (result != TITAN_COMM_OK) *error = why;
  return result;
}

titan_comm_result Hierarchical::run_part(const Messages& messages, const titan_comm_wait& wait, std::string* error) {
  stages_.clear();
  for (uint32_t i = 0; i < call_.num_tensors; i++)
    if (call_.tensors[i].outer)  // of an all_reduce the first piece is the largest
      for (int64_t start = 0; start < elements(call_.tensors[i], 0); start += stage_elements(size_, partial_bytes_)) stages_.push_back({i, start});
  if (call_.kind != titan_comm_all_gather) {
    if (const auto result = travel(messages, &Hierarchical::begin_reduce, &Hierarchical::end_reduce, error)) return result;
    if (!local_.meet(wait)) return TITAN_COMM_GAVE_UP;  // nobody changes what others may still be adding
  }
  if (call_.kind == titan_comm_reduce_scatter) return TITAN_COMM_OK;
  if (const auto result = travel(messages, &Hierarchical::begin_gather, &Hierarchical::end_gather, error)) return result;
  if (!local_.meet(wait)) return TITAN_COMM_GAVE_UP;
  copy_from_local();
  return local_.meet(wait) ? TITAN_COMM_OK : TITAN_COMM_GAVE_UP;  // nor what they may still be copying
}

titan_comm_result Hierarchical::run(const titan_comm_call& call, const std::vector<uint64_t>& window_bytes, const Messages& messages, const titan_comm_wait& wait, std::string* error) {
  call_ = call;
  bytes_ = static_cast<int64_t>(size_of(DType{call.dtype}));
  partial_bytes_ = static_cast<int64_t>(size_of(partial_of(DType{call.dtype})));
  slot_bytes_ = static_cast<size_t>(stage_elements(size_, partial_bytes_) * partial_bytes_);
  staged_.resize(std::max(staged_.size(), TITAN_COMM_LANES * num_slots_ * slot_bytes_));
  for (uint32_t first = 0; first < call.num_tensors; first += MOST_POSTED) {
    call_.tensors = call.tensors + first;
    call_.num_tensors = std::min<uint32_t>(MOST_POSTED, call.num_tensors - first);
    if (const auto result = local_.post(call_, window_bytes, wait, error)) return result;
    if (const auto result = run_part(messages, wait, error)) return result;
  }
  return TITAN_COMM_OK;
}

}  // namespace titan::comm
