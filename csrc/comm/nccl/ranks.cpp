// The world, as engines see it whose collectives go another way than through it.
#include "ranks.h"

#include "../../clock.h"
#include "../world.h"

namespace titan::comm {

std::vector<Group*> World::agree(const std::vector<Collective>& collectives) {
  if (options_.bytes_per_second > 0)
    throw Failure(TITAN_STATUS_INVALID_ARGUMENT, "a link is simulated, which is for ranks on CPUs; expected: none, as the device exchanges by itself; fix: no comm.simulate, or --device cpu");
  std::vector<Group*> groups;
  executor_.run([&] { groups = groups_of(collectives); });
  return groups;
}

void World::launched(Launched& launched) {
  check_goes_on();
  launched.number = begin(*launched.collective, *launched.group, *launched.scope).number;
  if (launched.group->shared) launched.group->shared->come();
}

void World::ended(const Launched& launched) {
  if (Record& record = options_.num_records ? block_->record(launched.number, options_.num_records) : unkept_; record.number == launched.number) record.end_ns = now_ns();
  count(*launched.collective);
}

void World::check(const Launched& launched, uint64_t since_ns, bool starting, const std::string& error) {
  const std::string what = text_of(*launched.collective, *launched.group, *launched.scope, launched.number);
  look_once(starting ? options_.start_timeout_ms : options_.timeout_ms, what, since_ns, launched.group, error);
}

void World::check(const char* what, uint64_t since_ns) { look_once(options_.start_timeout_ms, what, since_ns, nullptr, ""); }

}  // namespace titan::comm
