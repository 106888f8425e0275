// A communication module for tests: a world of two ranks in which the other does all that this one does. It exchanges nothing, so sums are wrong.
// What a test has to say goes into `titan_mirror`.
#include "mirror_module.h"

#include <cstdio>
#include <cstring>

namespace {

titan_mirror hooks = {};

int32_t open_world(titan_comm_place* place, char*) { return *place = {0, 2, 0, "a mirror"}, 0; }
int32_t make_group(const int32_t*, int32_t, void** group, char*) { return *group = &hooks, 0; }
int32_t gather(void*, const void* mine, void* all, uint64_t bytes, const titan_comm_wait*, char*) {
  for (uint64_t r = 0; r < 2; r++) std::memcpy(static_cast<char*>(all) + r * bytes, mine, bytes);
  return 0;
}
int32_t run(void*, const titan_comm_call* call, const titan_comm_wait* wait, char*) { return hooks.run ? hooks.run(call, wait) : 0; }
void give_up(const char* why) { std::snprintf(hooks.told, sizeof hooks.told, "%s", why); }
int32_t given_up(char* why) { return std::snprintf(why, TITAN_COMM_TEXT, "gave up: %.*s", TITAN_COMM_TEXT - 10, hooks.heard), *hooks.heard ? 1 : -1; }
int32_t close_world(char*) { return 0; }
void abort_world(int32_t) {}

const titan_comm_module MODULE = {TITAN_COMM_ABI, 0, 0, open_world, make_group, gather, run, /* run_stages, for several hosts */ nullptr, give_up, given_up, close_world, abort_world};

}  // namespace

extern "C" __attribute__((visibility("default"))) titan_mirror* titan_mirror_hooks() { return &hooks; }
extern "C" __attribute__((visibility("default"))) const titan_comm_module* TITAN_COMM_MODULE() { return &MODULE; }
