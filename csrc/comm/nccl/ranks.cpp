// The world, as engines see it whose collectives go another way than through it.
#include "ranks.h"

#include "../../clock.h"
#include "../world.h"

namespace titan::comm {

class WorldRanks final : public Ranks {
 public:
  explicit WorldRanks(World& world) : world_(world) {}
  int rank() const override { return world_.rank(); }
  int size() const override { return world_.size(); }
  void gather(const void* mine, void* all, uint64_t bytes) override { world_.gather(mine, all, bytes); }
  void give_up(const char* why) noexcept override { world_.give_up(why); }

  std::vector<Group*> agree(const std::vector<Collective>& collectives) override {
    if (world_.options_.bytes_per_second > 0)
      throw Failure(TITAN_STATUS_INVALID_ARGUMENT, "a link is simulated, which is for ranks on CPUs; expected: none, as the device exchanges by itself; fix: no comm.simulate, or --device cpu");
    std::vector<Group*> groups;
    world_.executor_.run([&] { groups = world_.load(0, collectives, false).groups; });
    return groups;
  }

  void launched(Launched& launched) override {
    if (world_.block_->state.load() == Block::gave_up) world_.executor_.run([&] { world_.check_works(); });
    launched.number = world_.begin(*launched.collective, *launched.group, *launched.scope).number;
    if (launched.group->shared) launched.group->shared->come();
  }

  void ended(const Launched& launched) override {
    const uint64_t kept = world_.options_.num_records;
    if (Record& record = kept ? world_.block_->record(launched.number, kept) : world_.unkept_; record.number == launched.number) record.end_ns = now_ns();
    world_.count(*launched.collective);
  }

  void check(const Launched& launched, uint64_t since_ns, bool starting, const std::string& error) override {
    const auto& [collective, group, scope, number] = launched;
    std::vector<int> missing;
    if (group->shared)
      for (const int member : group->shared->missing()) missing.push_back(group->ranks[static_cast<size_t>(member)]);
    // Of whom it tells what they did last: who has not come, else all.
    if (missing.empty() && !error.empty()) missing = group->ranks;
    look(since_ns, starting ? world_.options_.start_timeout_ms : world_.options_.timeout_ms, World::text_of(*collective, *group, *scope, number), error, missing);
  }

  void check(const char* what, uint64_t since_ns) override { look(since_ns, world_.options_.start_timeout_ms, what, "", {}); }

 private:
  void look(uint64_t since_ns, uint64_t timeout_ms, const std::string& what, const std::string& error, const std::vector<int>& missing) {
    world_.executor_.run([&] { world_.look(since_ns, timeout_ms, what, error, missing); });
  }

  World& world_;
};

std::unique_ptr<Ranks> ranks_of(World& world) { return std::make_unique<WorldRanks>(world); }

}  // namespace titan::comm
