// A program on a GPU. Kernels run on one stream, collectives on another (stream_waits.h, collective_launcher.h). An action's inputs go through a ring of
// pinned buffers on a stream of their own, while kernels of the action before run; results come back at the end of a run, which is the only time that
// the host waits for kernels.
//
// From its second run on, an action is launched as a graph, unless it is recorded or checked. A graph begins when all collectives that it waits for have
// ended, and who waits for one of its instructions waits for the whole. So not every action is one:
// - One with kernels alone is; collectives of other actions go on beside it.
// - One with kernels and collectives is, with both streams in it, where the program has one slot. Nothing of its collectives then goes on beyond the action.
// - Where it has several, as stages of pipelines do, such an action is launched one by one, and so is one with collectives alone: what a stage sends
//   and receives goes on beside whatever action comes next.
#pragma once
#include <deque>
#include <vector>

#include "../program.h"
#include "collective_launcher.h"
#include "engine.h"
#include "stream_waits.h"

namespace titan::cuda {

/// How many actions may have their inputs on the GPU at a time.
constexpr int RING = 2;
/// Of actions that differ in more than their inputs; what is beyond runs without a graph.
constexpr size_t MOST_GRAPHS = 256;

class CudaProgram : public DeviceProgram {
 public:
  /// Throws a Failure where the GPU has not the memory.
  CudaProgram(const CudaEngine& engine, Program& program, comm::Ranks* ranks);
  /// Waits for the GPU.
  ~CudaProgram() override;
  void run(const Run& run) override;
  void read(uint64_t offset, uint8_t* bytes, uint64_t num_bytes) override;
  void write(uint64_t offset, const uint8_t* bytes, uint64_t num_bytes) override;
  uint8_t* memory() override { return nullptr; }
  void describe(titan_memory& memory) const override {
    memory.table_bytes += states_.size();
    memory.huge_bytes = program_.arena_bytes;  // pages of a GPU have 2 MiB
  }

 private:
  /// What an action's kernels are launched with, all of which a graph has in it.
  struct Key {
    uint32_t section, flags, slot, source;
    int ring;
    uint64_t output_base;
    bool operator==(const Key&) const = default;
  };
  struct Captured {
    Key key;
    GraphExec graph;  // once it has run without
  };
  /// One of the ring, for the inputs of an action.
  struct Lane {
    PinnedMemory pinned;
    DeviceMemory memory;
    Event arrived, used;
    bool in_use = false;
  };
  struct Timed {
    Event begin, end;
  };

  void prepare_states();
  void prepare_plans();
  void make_room_for_outputs(uint64_t bytes);
  void run_actions(const Run& run);
  void bring_inputs(Lane& lane, const uint8_t* input, uint64_t bytes);
  void run_action(const titan_action& action, int ring, const Run& run, uint64_t* recorded);
  /// Launches the instructions of an action one by one, and takes the time of each if `recorded` says how many times there are already. `captured`:
  /// into a graph, which knows nothing of other actions.
  void launch(const titan_action& action, uint64_t* recorded = nullptr, bool captured = false);
  bool may_be_graph(const titan_action& action) const;
  void launch_graph(const titan_action& action, const Key& key);
  void capture(const titan_action& action, GraphExec& exec);
  /// What one stream does from now on comes behind all that the other has been given.
  void follow(const Stream& stream, const Stream& other, const Event& event);
  void join_collectives();
  void wait_for(const Event& event);
  void fetch_records(const Run& run, uint64_t begun_ns);
  /// What sections of a run write, all together: it is under way as a whole.
  const std::vector<Range>& writes_of(const Run& run);
  void* fetch(const Tensor& tensor, cudaStream_t stream);

  const CudaEngine& engine_;
  Program& program_;
  const bool graphs_allowed_;
  Arena arena_{nullptr, nullptr};
  DeviceMemory output_;
  Plans plans_;
  PinnedMemory pinned_output_;
  Stream compute_, comm_, copies_, state_copies_;
  StreamWaits waits_;
  std::unique_ptr<CollectiveLauncher> collectives_;  // null where the program has none
  Event fork_, join_, done_;
  bool comm_is_busy_ = false;    // kernels may have to wait for collectives that were launched by themselves
  bool comm_is_behind_ = false;  // collectives have to wait for graphs
  Lane lanes_[RING];
  uint64_t input_bytes_ = 0, output_bytes_ = 0;
  std::vector<uint8_t> states_;  // what kernels prepared
  std::vector<Captured> captured_;
  std::deque<Timed> times_;
  Event origin_;  // of times
  std::vector<uint8_t> fetched_;
  struct Writes {
    std::vector<bool> sections;
    std::vector<Range> ranges;
  };
  std::deque<Writes> writes_;  // stay where they are
  std::vector<bool> sections_;
};

}  // namespace titan::cuda
