// Collectives by messages, for every communication module alike. A sum travels as pieces that each rank adds in the order of the ranks, so it has
// the same bits as through shared memory, in every run. Tensors travel in stages, several of them at once.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "module.h"
#include "pieces.h"

namespace titan::comm {

/// What a module does for the members of one group: messages of bytes between two of them arrive in the order in which they were posted. A message
/// belongs to one of a few lanes, which are waited for one by one.
class Messages {
 public:
  Messages(int rank, int size) : rank(rank), size(size), parts_(static_cast<size_t>(size)) {}
  virtual ~Messages() = default;
  Messages(const Messages&) = delete;

  /// Runs a collective. Throws what `send`, `receive` and `finish` throw.
  titan_comm_result run(const titan_comm_call& call, const titan_comm_wait& wait);
  titan_comm_result run(const titan_comm_stages& stages, const titan_comm_wait& wait);  // messages of others' choice
  /// Every member's bytes, one after another. Copies both ways, so that the caller's memory is its own again however this ends.
  titan_comm_result gather(const void* mine, void* all, int64_t bytes, const titan_comm_wait& wait);

  const int rank, size;  // this member, and how many there are

 protected:
  virtual void send(int lane, int to, const char* data, int64_t bytes) = 0;
  virtual void receive(int lane, int from, char* data, int64_t bytes) = 0;
  /// Waits for all messages of a lane; false where `wait` has given up.
  virtual bool finish(int lane, const titan_comm_wait& wait) = 0;

 private:
  struct Context;
  bool all_gather(const Context& context, const titan_comm_tensor& tensor);
  bool reduce_scatter(const Context& context, const titan_comm_tensor& tensor);
  bool all_reduce(const Context& context, const titan_comm_tensor& tensor);
  bool ring_shift(const Context& context, const titan_comm_tensor& tensor);
  bool all_to_all(const Context& context, const titan_comm_tensor& tensor);
  bool exchange(const Context& context);
  /// Room for a piece of every member in each lane.
  void make_room(bool sent, int64_t stage_bytes);
  char* sent(int lane, int member) { return sent_.data() + (lane * size + member) * stage_bytes_; }
  char* received(int lane, int member) { return received_.data() + (lane * size + member) * stage_bytes_; }

  // Messages that nobody waits for any more may still arrive here.
  std::vector<char> sent_, received_;
  std::vector<const char*> parts_;  // where those that are added up lie
  int64_t stage_bytes_ = 0;
};

}  // namespace titan::comm
