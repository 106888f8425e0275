// Where the processes of a played communicator meet: memory that all of them map, with a box for each pair of ranks. A box holds the letters of one group of
// calls; the next are written when the receiver has taken these.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

namespace titan::cuda::host {

constexpr int MOST_RANKS = 8;  // of a played communicator

/// What a call of one rank brings another. So many bytes lie behind it.
struct Letter {
  uint32_t call, dtype, op, last;  // `last` of its box
  uint64_t count, bytes;
  const char* data() const { return reinterpret_cast<const char*>(this + 1); }
  const Letter* next() const { return reinterpret_cast<const Letter*>(data() + (bytes + alignof(Letter) - 1) / alignof(Letter) * alignof(Letter)); }
};

/// By which others find the memory: it has no name, and is gone with the last process.
struct MailPlace {
  int32_t pid, descriptor;
  uint64_t nonce;
};

class Mail {
 public:
  /// Makes the memory. It can be joined until this process has joined and left.
  static MailPlace make();
  /// Null, with the reason, where there is no such memory or the rank has joined already.
  static std::shared_ptr<Mail> join(const MailPlace& place, int rank, int ranks, std::string* why);
  ~Mail();
  Mail(const Mail&) = delete;

  bool all_have_joined() const;
  /// Has `to` taken what this rank sent it last?
  bool may_send(int to) const;
  /// The letter that is to be filled in behind those of `sending` to the same rank, null where the box is full.
  Letter* write(int to, Letter* behind, uint64_t bytes);
  void send(int to);
  bool has_come(int from) const;
  const Letter* read(int from) const;
  void taken(int from);
  /// Work of this rank waits for nobody any more.
  std::atomic<bool> aborted{false};
  const int rank, ranks;

 private:
  struct Head;
  Mail(int rank, int ranks, Head* head, int descriptor) : rank(rank), ranks(ranks), head_(head), descriptor_(descriptor) {}
  char* box(int from, int to) const;
  Head* const head_;
  const int descriptor_;  // -1 where another process made the memory
};

}  // namespace titan::cuda::host
