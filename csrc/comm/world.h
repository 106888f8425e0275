// All ranks that train together, as one of them sees them: who they are, the groups that exchange, whose memory this process reads, how long it
// waits for whom, and what each has done last (the flight recorder). Everything happens on the world's own thread, in the order of the calls.
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../executor.h"
#include "../failure.h"
#include "collective.h"
#include "hierarchical.h"
#include "module.h"
#include "nccl/ranks.h"
#include "shared.h"

namespace titan {
struct Device;
}

namespace titan::comm {

constexpr int MOST_GROUPS = 64;

/// A collective that a rank began; `end_ns` is 0 until it has ended.
struct Record {
  uint64_t number, begin_ns, end_ns, bytes;
  uint32_t kind, dtype, num_tensors, group_size;
  char scope[96];
};

/// What a rank shows the others of its host.
struct Block {
  enum State : uint32_t { works, gives_up, gave_up };
  std::atomic<uint32_t> state;
  int32_t pid;
  char reason[256];  // why it gave up
  std::atomic<uint64_t> num_records;
  Seat seats[MOST_GROUPS];  // of its groups
  /// The last `kept` records lie behind the block: number n at n % kept.
  Record& record(uint64_t n, uint64_t kept) { return reinterpret_cast<Record*>(this + 1)[n % kept]; }
  const Record& record(uint64_t n, uint64_t kept) const { return reinterpret_cast<const Record*>(this + 1)[n % kept]; }
};

struct Group {
  std::vector<int> ranks;
  void* handle;                         // of the module
  std::unique_ptr<SharedGroup> shared;  // where all its ranks see each other's memory
  std::unique_ptr<Hierarchical> levels; // where those of a host do, and there are several hosts
};

class World {
 public:
  /// Opens the module and joins the others. One world for each process.
  static std::shared_ptr<World> open(const std::string& module, const titan_comm_options& options);
  ~World();

  int rank() const { return place_.rank; }
  int size() const { return place_.size; }
  void describe(titan_comm_info& info) const;
  /// Binds a device's threads to this rank's share of the processors of its host, if there are enough, and finds out with how many others it
  /// has each limit of memory together.
  void share_host(Device& device);
  /// What this rank has done in collectives of a kind.
  titan_comm_traffic traffic(uint32_t kind) const;
  /// The last collectives of all ranks of this host, for people.
  std::string record() const;
  /// Every rank's bytes, one after another.
  void gather(const void* mine, void* all, uint64_t bytes);
  void leave();
  void abort(int32_t exit_code) { module_->abort(exit_code); }
  /// The same ranks for an engine whose collectives go another way.
  Ranks& ranks() { return *ranks_; }
  /// The thread on which all below are called.
  Executor& executor() { return executor_; }

  /// All ranks load a program together, in the same order: they agree on groups, and share the memory of its arena.
  Loading load(uint64_t arena_bytes, const std::vector<Collective>& collectives, bool shares_arena = true);
  void release(int number);
  /// Throws a Failure where another rank does not come, has ended, or is at another collective.
  void run(const Collective& collective, Group& group, const std::string& scope, bool starting);

  /// This rank does not go on, as the others see who see its memory. From any thread.
  void give_up(const char* why) noexcept;
  /// Tells the same, if it has given up, those who do not see its memory. From any thread but the world's own.
  void tell();
  /// Is memory of programs to stay until the process ends? Messages may be on their way that nobody waits for.
  bool keeps_memory() const { return under_way_; }

 private:
  friend class WorldRanks;
  struct Peer {
    Block* block = nullptr;  // null on another host
    std::vector<std::unique_ptr<Mapping>> mappings;
    std::vector<char*> windows;  // the blocks are window 0
  };
  struct Wait;

  struct Traffic {
    std::atomic<uint64_t> collectives, tensors;
    std::atomic<double> sent_bytes;
  };

  World(const titan_comm_module* module, const titan_comm_options& options) : module_(module), options_(options) {}
  void join();
  uint64_t block_bytes() const { return sizeof(Block) + options_.num_records * sizeof(Record); }
  void count(const Collective& collective);
  int add_window(uint64_t bytes, bool* mapped, std::string* why);
  Group* group_of(const std::vector<int>& ranks);
  void agree_on_groups(const std::vector<Collective>& collectives);
  static std::string text_of(const Collective& collective, const Group& group, const std::string& scope, uint64_t number);
  Record& begin(const Collective& collective, const Group& group, const std::string& scope);
  /// `all` has room for every rank of the world.
  void gather_all(const void* mine, void* all, uint64_t bytes, const char* what);
  [[noreturn]] void fail(titan_comm_result result, const Wait& wait, const std::string& error, const std::vector<int>& missing);
  std::string last_of(int rank) const;
  /// One look at the others for who waits by itself: fails where `error` says so, or waiting is no use.
  void look(uint64_t since_ns, uint64_t timeout_ms, const std::string& what, const std::string& error, const std::vector<int>& missing);
  void check_works() const;
  void tell_now();

  const titan_comm_module* const module_;
  const titan_comm_options options_;
  Executor executor_;
  Executor::Job opening_;
  titan_comm_place place_ = {};
  bool shares_ = false;
  bool sees_all_ = false;  // the memory of all ranks
  bool told_ = false;      // or heard: those who do not see it know that somebody has given up
  std::atomic<bool> under_way_{false};
  std::string exchange_, processors_, broken_;
  std::vector<int> hosts_;  // by rank: the lowest rank on its host
  std::vector<Peer> peers_;  // by rank, this one too
  std::vector<std::unique_ptr<Window>> windows_;
  std::vector<uint64_t> window_bytes_;
  std::vector<Seat> own_block_;  // where memory is not shared: room for a block
  Block* block_ = nullptr;
  Record unkept_ = {};  // where no records are kept
  uint32_t looks_ = 0;
  const std::unique_ptr<Ranks> ranks_ = ranks_of(*this);
  std::map<std::vector<int>, Group> groups_;
  Traffic traffic_[NUM_COLLECTIVES] = {};
};

}  // namespace titan::comm
