// The ranks of a world, as an engine sees them whose collectives go another way than through World, such as NCCL's between GPUs. It is a module that
// cannot call World itself, since libtitan shows nothing but its C interface. All is called from the thread of the device.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../collective.h"

namespace titan::comm {

class World;

/// A collective that a device has begun, or will begin in its turn.
struct Launched {
  const Collective* collective;
  Group* group;
  const std::string* scope;
  uint64_t number;  // of its record, by `launched`
};

class Ranks {
 public:
  virtual ~Ranks() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Every rank's bytes, one after another; all ranks gather in the same order.
  virtual void gather(const void* mine, void* all, uint64_t bytes) = 0;
  /// All ranks load a program together, in the same order: they agree on its collectives. Gives the group of each.
  virtual std::vector<Group*> agree(const std::vector<Collective>& collectives) = 0;
  /// Records a collective that is about to be launched, and fills in its number. Throws where this rank has given up before.
  virtual void launched(Launched& launched) = 0;
  virtual void ended(const Launched& launched) = 0;
  /// Throws a Failure that names the collective, and tells the others, where it is no use to wait for it any longer: `error` says why it has failed, another
  /// rank has given up or ended, or nothing has gone on since then for as long as the configuration allows (`starting`: before a program's first run has
  /// ended).
  virtual void check(const Launched& launched, uint64_t since_ns, bool starting, const std::string& error) = 0;
  /// The same for what a device does before that, such as joining a group: `what` names it, and it may take as long as a start.
  virtual void check(const char* what, uint64_t since_ns) = 0;
  /// This rank does not go on.
  virtual void give_up(const char* why) noexcept = 0;
};

std::unique_ptr<Ranks> ranks_of(World& world);

}  // namespace titan::comm
