// Collectives of a group that spans hosts, in two levels: ranks of one host read each other's memory, and what travels between two hosts does so
// once. All ranks of a host send and receive, each for its share of the pieces.
#pragma once
#include <string>
#include <vector>

#include "module.h"
#include "shared.h"

namespace titan::comm {

/// One rank's view of a group on several hosts.
class Hierarchical {
 public:
  /// What carries messages between its members.
  struct Messages {
    const titan_comm_module& module;
    void* group;
    const titan_comm_wait& wait;
  };
  /// `host_of` says of each member on which host it is; `local` has those of this host, in the same order.
  Hierarchical(const std::vector<int>& host_of, int self, SharedGroup local);
  Hierarchical(const Hierarchical&) = delete;

  /// Is there a rank that has another beside it, and does the group span hosts?
  static bool is_worth(const std::vector<int>& host_of);
  /// Those that send less in two levels: the pieces of others go from one rank to one rank.
  static bool runs(uint32_t kind) { return kind == titan_comm_all_gather || kind == titan_comm_reduce_scatter || kind == titan_comm_all_reduce; }

  /// Runs a collective, as SharedGroup does. Sums are those of each host, in the order of the ranks there, added in the order of the hosts' first
  /// ranks; those of bf16 stay in f32 until the end.
  titan_comm_result run(const titan_comm_call& call, const std::vector<uint64_t>& window_bytes, const Messages& messages, const titan_comm_wait& wait, std::string* error);
  std::vector<int> missing() const { return local_.missing(); }

 private:
  /// Elements from `start` on of every member's piece of a tensor.
  struct Stage { uint32_t tensor; int64_t start; };

  /// The member of a host that sends a member's piece there, or receives it.
  int partner(size_t host, int member) const { return hosts_[host][static_cast<size_t>(place_[static_cast<size_t>(member)]) % hosts_[host].size()]; }
  int64_t elements(const titan_comm_tensor& tensor, int member) const;
  int64_t count(const Stage& stage, int member) const;
  template <class Each> void each_run_of(const titan_comm_tensor& tensor, int member, int64_t start, int64_t count, Each each) const;
  /// Where this rank's own piece lies, without gaps.
  char* own_piece(const titan_comm_tensor& tensor) const;
  bool lies_dense(const titan_comm_tensor& tensor) const { return call_.kind == titan_comm_all_reduce || tensor.outer == 1; }
  char* slot(uint64_t stage, size_t number) { return staged_.data() + ((stage % TITAN_COMM_LANES) * num_slots_ + number) * slot_bytes_; }

  void add_local(const Stage& stage, int member, char* to);
  void begin_reduce(uint64_t stage);
  void end_reduce(uint64_t stage);
  void begin_gather(uint64_t stage);
  void end_gather(uint64_t stage);
  void copy_from_local();
  titan_comm_result travel(const Messages& messages, void (Hierarchical::*begin)(uint64_t), void (Hierarchical::*end)(uint64_t), std::string* error);
  titan_comm_result run_part(const Messages& messages, const titan_comm_wait& wait, std::string* error);

  const int size_, self_;
  SharedGroup local_;
  std::vector<std::vector<int>> hosts_;  // members by host
  std::vector<int> place_;               // by member: which of its host
  size_t host_ = 0;                      // this rank's
  std::vector<int> handled_;             // members elsewhere whose pieces this rank sends and receives for its host

  // Of the call under way.
  titan_comm_call call_ = {};
  int64_t bytes_ = 0, partial_bytes_ = 0;  // of an element, and of one of a partial sum
  std::vector<Stage> stages_;
  std::vector<titan_comm_tensor> list_;  // the messages of a stage
  std::vector<const char*> parts_;
  std::vector<char> staged_;
  size_t num_slots_ = 0, slot_bytes_ = 0;
};

}  // namespace titan::comm
