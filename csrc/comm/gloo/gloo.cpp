// libtitan_gloo: the communication module over Gloo, which needs no MPI. Processes meet at a store that rank 0 serves, where MASTER_ADDR and
// MASTER_PORT say; Gloo's TCP then carries messages between any two of them.
#include <gloo/config.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../messages.h"
#include "client.h"
#include "server.h"

namespace {

using namespace titan::comm::gloo;
using Buffer = ::gloo::transport::UnboundBuffer;

constexpr auto FOR_EVER = std::chrono::hours(10'000);  // who waits is told when to stop
constexpr int ASK_MS = 5;

/// Gloo's buffers are waited for asleep; this thread asks meanwhile whether to go on, and wakes who waits where not.
class Watcher {
 public:
  Watcher() : thread_([this] { watch(); }) { thread_.detach(); }

  /// Waits for a message; false where `wait` has given up. Throws what Gloo throws.
  bool wait(Buffer& buffer, bool is_send, const titan_comm_wait& wait) {
    set(&buffer, is_send, &wait);
    struct Reset { Watcher* self; ~Reset() { self->set(nullptr, false, nullptr); } } reset{this};
    return is_send ? buffer.waitSend(nullptr, FOR_EVER) : buffer.waitRecv(nullptr, FOR_EVER);
  }

 private:
  void set(Buffer* buffer, bool is_send, const titan_comm_wait* wait) {
    std::lock_guard lock(mutex_);
    buffer_ = buffer;
    is_send_ = is_send;
    wait_ = wait;
  }

  void watch() {
    for (;; std::this_thread::sleep_for(std::chrono::milliseconds(ASK_MS))) {
      std::lock_guard lock(mutex_);
      if (!buffer_ || wait_->go_on(wait_->context)) continue;
      if (is_send_) buffer_->abortWaitSend();
      else buffer_->abortWaitRecv();
    }
  }

  std::mutex mutex_;
  Buffer* buffer_ = nullptr;
  bool is_send_ = false;
  const titan_comm_wait* wait_ = nullptr;
  std::thread thread_;
};

class Group;

/// What the module has: it is never taken down, since messages may be on their way that nobody waits for.
struct World {
  std::unique_ptr<StoreServer> server;  // on rank 0
  std::unique_ptr<StoreClient> client;
  std::shared_ptr<::gloo::rendezvous::Context> context;
  std::vector<uint64_t> sent, received;  // messages, by rank: numbers that tell them apart
  Watcher watcher;
  Group* all = nullptr;
};
World* world = nullptr;

class Group final : public titan::comm::Messages {
 public:
  Group(std::vector<int> ranks, int self) : Messages(self, static_cast<int>(ranks.size())), ranks_(std::move(ranks)) {}

 protected:
  void send(int lane, int to, const char* data, int64_t bytes) override {
    auto buffer = world->context->createUnboundBuffer(const_cast<char*>(data), static_cast<size_t>(bytes));
    const int rank = ranks_[static_cast<size_t>(to)];
    buffer->send(rank, world->sent[static_cast<size_t>(rank)]++);
    lanes_[lane].push_back({std::move(buffer), true});
  }
  void receive(int lane, int from, char* data, int64_t bytes) override {
    auto buffer = world->context->createUnboundBuffer(data, static_cast<size_t>(bytes));
    const int rank = ranks_[static_cast<size_t>(from)];
    buffer->recv(rank, world->received[static_cast<size_t>(rank)]++);
    lanes_[lane].push_back({std::move(buffer), false});
  }
  bool finish(int lane, const titan_comm_wait& wait) override {
    for (Message& message : lanes_[lane])
      if (!world->watcher.wait(*message.buffer, message.is_send, wait)) return false;
    lanes_[lane].clear();
    return true;
  }

 private:
  struct Message { std::unique_ptr<Buffer> buffer; bool is_send; };
  const std::vector<int> ranks_;
  std::vector<Message> lanes_[titan::comm::LANES];
};

/// How Gloo's processes exchange the addresses of their sockets.
class Store final : public ::gloo::rendezvous::Store {
 public:
  void set(const std::string& key, const std::vector<char>& data) override { world->client->set(key, {data.begin(), data.end()}); }
  std::vector<char> get(const std::string& key) override {
    const std::string value = world->client->get(key);
    return {value.begin(), value.end()};
  }
  void wait(const std::vector<std::string>& keys) override {
    for (const std::string& key : keys) world->client->get(key);
  }
};

std::string variable(const char* name, const char* or_name = nullptr) {
  const char* value = std::getenv(name);
  if ((!value || !*value) && or_name) value = std::getenv(or_name);
  return value ? value : "";
}

uint32_t number(const char* name, const char* or_name, uint32_t most) {
  const std::string text = variable(name, or_name);
  char* end = nullptr;
  const unsigned long value = std::strtoul(text.c_str(), &end, 10);
  if (text.empty() || *end || value > most) throw Error(std::string("the environment variable ") + name + " is \"" + text + "\"; expected: a whole number up to " + std::to_string(most) + "; fix: set it for every process, or let --nproc or --hosts start them");
  return static_cast<uint32_t>(value);
}

/// Where a launcher of this host that leaves the port to the system lets rank 0 tell it to the others.
std::string port_file() { return variable("TITAN_LAUNCHED") + "/port"; }

uint16_t told_port() {
  for (;; std::this_thread::sleep_for(std::chrono::milliseconds(20))) {
    std::ifstream file(port_file());
    std::string word, end;
    if (file >> word >> end && end == ".") return static_cast<uint16_t>(std::stoul(word));
  }
}

int fail(char* error, const std::string& why) {
  std::snprintf(error, TITAN_COMM_TEXT, "%s", why.c_str());
  return TITAN_COMM_FAILED;
}

/// A broken connection tells less than the store: which process is lost, and how.
int fail_or_lost(char* error, const std::string& why, const titan_comm_wait* wait) {
  for (const uint64_t begun = now_ms(); now_ms() - begun < LOST_MS + 2 * BEAT_MS; std::this_thread::sleep_for(std::chrono::milliseconds(ASK_MS)))
    if (!wait->go_on(wait->context)) return TITAN_COMM_GAVE_UP;
  return fail(error, why);
}

int open_world(titan_comm_place* place, char* error) {
  try {
    const uint32_t size = number("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", 1 << 20), rank = number("RANK", "SLURM_PROCID", size - 1);
    auto port = static_cast<uint16_t>(number("MASTER_PORT", nullptr, 65535));
    const std::string host = variable("MASTER_ADDR"), token = variable("TITAN_TOKEN");
    if (host.empty()) throw Error("the environment variable MASTER_ADDR is not set; expected: the host of rank 0");
    if (token.empty()) throw Error("the environment variable TITAN_TOKEN is not set; expected: a secret that all ranks share, by which they know each other; fix: export TITAN_TOKEN, the same on all hosts, such as $(openssl rand -hex 16)");
    world = new World{};
    if (rank == 0) {
      world->server = std::make_unique<StoreServer>(host, port, size, token);
      if (!port) std::ofstream(port_file()) << world->server->port() << " .\n";
    }
    if (!port) port = rank == 0 ? world->server->port() : told_port();
    world->client = std::make_unique<StoreClient>(StoreClient::Place{host, port, rank, size, token, variable("TITAN_ADDRESS")});
    world->sent.resize(size);
    world->received.resize(size);

    // Who shares an address shares a host: it is the one that the store was reached from.
    world->client->set("host " + std::to_string(rank), world->client->address());
    int lowest = static_cast<int>(rank);
    for (uint32_t r = 0; r < rank && lowest == static_cast<int>(rank); r++)
      if (world->client->get("host " + std::to_string(r)) == world->client->address()) lowest = static_cast<int>(r);

    ::gloo::transport::tcp::attr attributes(world->client->address().c_str());
    auto device = ::gloo::transport::tcp::CreateDevice(attributes);
    world->context = std::make_shared<::gloo::rendezvous::Context>(static_cast<int>(rank), static_cast<int>(size));
    world->context->setTimeout(FOR_EVER);
    Store store;
    if (size > 1) world->context->connectFullMesh(store, device);
    std::vector<int> all(size);
    for (uint32_t r = 0; r < size; r++) all[r] = static_cast<int>(r);
    world->all = new Group(std::move(all), static_cast<int>(rank));
    *place = {static_cast<int32_t>(rank), static_cast<int32_t>(size), lowest, {}};
    std::snprintf(place->version, sizeof place->version, "Gloo %d.%d.%d", GLOO_VERSION_MAJOR, GLOO_VERSION_MINOR, GLOO_VERSION_PATCH);
    return TITAN_COMM_OK;
  } catch (const std::exception& e) {
    return fail(error, e.what());
  }
}

int make_group(const int32_t* ranks, int32_t size, void** group, char*) {
  std::vector<int> list(ranks, ranks + size);
  int self = 0;
  while (list[static_cast<size_t>(self)] != world->all->rank) self++;
  *group = new Group(std::move(list), self);
  return TITAN_COMM_OK;
}

Group& group_of(void* group) { return group ? *static_cast<Group*>(group) : *world->all; }

template <class Run> int guarded(const titan_comm_wait* wait, char* error, Run run) {
  try {
    return run();
  } catch (const std::exception& e) {
    return fail_or_lost(error, e.what(), wait);
  }
}

int gather(void* group, const void* mine, void* all, uint64_t bytes, const titan_comm_wait* wait, char* error) {
  return guarded(wait, error, [&] { return group_of(group).gather(mine, all, static_cast<int64_t>(bytes), *wait); });
}

int run(void* group, const titan_comm_call* call, const titan_comm_wait* wait, char* error) {
  return guarded(wait, error, [&] { return group_of(group).run(*call, *wait); });
}

int run_stages(void* group, const titan_comm_stages* stages, const titan_comm_wait* wait, char* error) {
  return guarded(wait, error, [&] { return group_of(group).run(*stages, *wait); });
}

void give_up(const char* why) { world->client->give_up(why); }

int given_up(char* why) {
  std::string how;
  const int rank = world->client->lost(&how);
  if (rank == world->all->rank) return -1;  // the others are told, and this process knows
  std::snprintf(why, TITAN_COMM_TEXT, "%s", how.c_str());
  return rank;
}

int close_world(char*) {
  world->client->leave();
  // Rank 0 is there until the last has left.
  for (const uint64_t begun = now_ms(); world->server && !world->server->is_over() && now_ms() - begun < 2 * LOST_MS;) std::this_thread::sleep_for(std::chrono::milliseconds(ASK_MS));
  return TITAN_COMM_OK;
}

void abort_world(int32_t exit_code) {
  world->client->give_up("has ended all ranks");
  _exit(exit_code);
}

const titan_comm_module MODULE = {TITAN_COMM_ABI, /* sleeps */ 1, /* watches */ 1, open_world, make_group, gather, run, run_stages, give_up, given_up, close_world, abort_world};

}  // namespace

extern "C" __attribute__((visibility("default"))) const titan_comm_module* TITAN_COMM_MODULE() { return &MODULE; }
