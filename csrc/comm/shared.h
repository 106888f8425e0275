// Collectives of ranks on one host: everybody posts where its tensors lie, waits for the others, and reads their memory directly. A rank sums
// its own piece of what all have; nothing is copied but into the results. Memory that all ranks see is mapped by each of them (Window).
#pragma once
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "module.h"

namespace titan::comm {

/// Where another process of this host finds a window, and what it has to be: a process number means nothing to who counts them otherwise (in
/// another container), and may be that of a newer process.
struct WindowPlace {
  int32_t pid, descriptor;
  uint64_t bytes, nonce;
};

/// Memory of this process that others can map, until `settle`.
class Window {
 public:
  explicit Window(uint64_t bytes);
  ~Window();
  Window(const Window&) = delete;
  char* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }
  WindowPlace place() const;
  /// All others have mapped it.
  void settle();

 private:
  char* data_;
  uint64_t bytes_, nonce_;
  int descriptor_;
};

/// Memory of another process of this host, as this one sees it.
class Mapping {
 public:
  /// Throws a Failure where something else is found there.
  explicit Mapping(const WindowPlace& place);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  char* data() const { return data_; }

 private:
  char* data_;
  uint64_t bytes_;
};

constexpr int MOST_POSTED = 32;  // tensors of one meeting; more meet again

/// What a rank is about to do together with others, and where its tensors lie: windows by their number, offsets in bytes.
struct Post {
  uint32_t kind, dtype, by, num_tensors;
  struct Tensor {
    uint32_t in_window, out_window;
    uint64_t in_offset, out_offset, outer, chunk, in_step, in_run, out_run;
    uint32_t from, to;
  } tensors[MOST_POSTED];
};

/// A rank's place in a group, in memory that all its ranks see.
struct alignas(64) Seat {
  std::atomic<uint32_t> arrived;  // at how many meetings it has been, modulo 2^32; the others sleep on this word
  Post post;
};

/// One rank's view of a group on one host.
class SharedGroup {
 public:
  struct Member {
    Seat* seat;
    const std::vector<char*>* windows;  // where this process sees the member's windows
    int number;                         // in the group
  };
  SharedGroup(std::vector<Member> members, int self) : members_(std::move(members)), self_(self), parts_(members_.size()) {}

  /// Runs a collective. Its tensors lie in this rank's windows, of which `window_bytes` says how large each is.
  /// While it waits it asks `wait` again every few milliseconds, and sleeps by itself.
  titan_comm_result run(const titan_comm_call& call, const std::vector<uint64_t>& window_bytes, const titan_comm_wait& wait, std::string* error);
  /// Says where this rank's tensors lie, at most MOST_POSTED, and waits until all members have done so: from then until the next meeting each may
  /// read what `in_of` and `out_of` find.
  titan_comm_result post(const titan_comm_call& call, const std::vector<uint64_t>& window_bytes, const titan_comm_wait& wait, std::string* error);
  /// Waits until all have come; false where `wait` has given up.
  bool meet(const titan_comm_wait& wait);
  /// This rank has come to a meeting at which nobody waits: `missing` then tells who has not.
  void come() { members_[static_cast<size_t>(self_)].seat->arrived.store(++meetings_, std::memory_order_release); }
  /// A tensor of a member, counted here, as this process sees it.
  const char* in_of(size_t member, uint32_t tensor) const;
  const char* out_of(size_t member, uint32_t tensor) const;
  /// Numbers of members that have not come to the meeting at which this one waits.
  std::vector<int> missing() const;
  /// When all had come to the last collective.
  uint64_t met_ns() const { return met_ns_; }

 private:
  bool is_before(uint32_t arrived) const { return static_cast<int32_t>(arrived - meetings_) < 0; }
  std::string disagreement() const;
  void gather(const titan_comm_tensor& tensor, uint32_t i, uint64_t size);
  void shift(const titan_comm_tensor& tensor, uint32_t i, uint64_t size);
  void transpose(const titan_comm_tensor& tensor, uint32_t i, uint64_t size);
  void scatter(const titan_comm_call& call, uint32_t i, uint64_t size);
  void reduce_piece(const titan_comm_call& call, uint32_t i, uint64_t size);
  void gather_pieces(const titan_comm_tensor& tensor, uint32_t i, uint64_t size);

  std::vector<Member> members_;
  const int self_;
  std::vector<const char*> parts_;
  uint32_t meetings_ = 0;
  uint64_t met_ns_ = 0;
};

}  // namespace titan::comm
