#include "../failure.h"
#include "collectives.h"

namespace titan::cuda {

std::unique_ptr<Collectives> open_collectives(comm::Ranks&, const Exchange&) {
  throw Failure(TITAN_STATUS_INVALID_PROGRAM, "the program has collectives, which GPUs have not learned yet; expected: a program of one process; fix: one process, or --device cpu");
}

}  // namespace titan::cuda
