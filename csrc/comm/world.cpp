#include "world.h"

#include <dlfcn.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <set>
#include <thread>

#include "../clock.h"
#include "../device.h"

namespace titan::comm {
namespace {

[[noreturn]] void refuse(const std::string& message) { throw Failure(TITAN_STATUS_COMMUNICATION, message); }

std::string seconds(uint64_t ns) {
  char out[32];
  std::snprintf(out, sizeof out, "%.1f s", static_cast<double>(ns) / 1e9);
  return out;
}

std::string list(const std::vector<int>& ranks) {
  std::string out = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < ranks.size(); i++) out += (i ? ", " : "") + std::to_string(ranks[i]);
  return out;
}

std::string describe(const Record& record, uint64_t now) {
  const std::string what = text(COLLECTIVES[record.kind].name, " ", record.number, " of ", record.bytes, " bytes of ", name_of(DType{record.dtype}), " over ", record.group_size, " ranks in ",
                                record.scope[0] ? record.scope : "the graph");
  return record.end_ns ? text(what, ", ended ", seconds(now - record.end_ns), " ago") : text(what, ", begun ", seconds(now - record.begin_ns), " ago");
}

const titan_comm_module* load_module(const std::string& name) {
  if (name.empty() || name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") != std::string::npos)
    throw Failure(TITAN_STATUS_INVALID_ARGUMENT, text("\"", name, "\" is no name of a communication module; expected: mpi or gloo"));
  Dl_info own;
  std::string path = dladdr(reinterpret_cast<void*>(&titan_abi_version), &own) && own.dli_fname ? own.dli_fname : "";
  path = path.substr(0, path.rfind('/') + 1) + "libtitan_" + name + ".so";
  // UCX, which MPIs are built with, writes hooks into the code of libc when it is loaded. Other threads run that code meanwhile.
  setenv("UCX_MEM_MMAP_HOOK_MODE", "none", 0);
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  const auto fix = "; expected: the module that was built with this library; fix: deno task setup --mpi";
  if (!library) refuse(text("cannot open the communication module: ", dlerror(), fix));
  auto* function = reinterpret_cast<titan_comm_module_function*>(dlsym(library, "titan_comm_module_of_this_library"));
  const titan_comm_module* module = function ? function() : nullptr;
  if (!module || module->abi != TITAN_COMM_ABI) refuse(text(path, " is of another version", fix));
  return module;
}

std::atomic<bool> opened{false};

}  // namespace

/// How long this rank waits, for whom, and why it stopped.
struct World::Wait {
  World& world;
  std::string what;
  uint64_t begun = now_ns(), timeout_ms;
  uint32_t asked = 0, looked = 0;
  int lost = -1;
  std::string loss;  // why waiting for that rank is no use

  Wait(World& world, uint64_t timeout_ms, std::string what) : world(world), what(std::move(what)), timeout_ms(timeout_ms) {}
  /// For a module: one that does not sleep asks all the time.
  titan_comm_wait interface() {
    if (world.module_->sleeps) return interface_of_sleeper();
    return {[](void* self) -> int32_t { return static_cast<Wait*>(self)->go_on(); }, this};
  }
  /// For who asks every few milliseconds, and sleeps meanwhile.
  titan_comm_wait interface_of_sleeper() {
    return {[](void* self) -> int32_t { return static_cast<Wait*>(self)->look(); }, this};
  }

  bool go_on() {
    // Ranks of one host share its processors: who waits soon lets the others work.
    asked++;
    if (asked < 1000) sched_yield();
    else std::this_thread::sleep_for(std::chrono::microseconds(50));
    return asked % 64 || look();
  }

  bool look() {
    looked++;
    stop_at_exit();
    if (now_ns() - begun > timeout_ms * 1'000'000) return false;
    for (int rank = 0; rank < static_cast<int>(world.peers_.size()) && lost < 0; rank++) {
      // This rank may have given up itself: its kernels run beside its collectives.
      const Block* block = rank == world.rank() ? world.block_ : world.peers_[static_cast<size_t>(rank)].block;
      if (!block) continue;
      const uint32_t state = block->state.load(std::memory_order_acquire);
      if (state == Block::gave_up) lost = rank, loss = text("gave up: ", block->reason);
      else if (looked % 64 == 0 && kill(block->pid, 0) && errno == ESRCH) lost = rank, loss = "has ended without a word";
    }
    if (lost < 0 && (!world.sees_all_ || world.module_->watches)) {
      char why[TITAN_COMM_TEXT];
      lost = world.module_->given_up(why);
      if (lost >= 0) loss = why, world.told_ = true;
    }
    return lost < 0;
  }
};

std::shared_ptr<World> World::open(const std::string& name, const titan_comm_options& options) {
  const titan_comm_module* module = load_module(name);
  if (opened.exchange(true)) throw Failure(TITAN_STATUS_INVALID_ARGUMENT, "this process has joined the others already; expected: to join once");
  auto* world = new World(module, options);
  world->opening_.work = world;
  world->opening_.call = [](void* self) { static_cast<World*>(self)->join(); };
  world->executor_.post(world->opening_);
  // Its thread cannot be stopped while it hangs in the module: the world then stays.
  if (!world->executor_.wait_for(world->opening_, options.start_timeout_ms))
    refuse(text("the other ranks did not join within ", seconds(options.start_timeout_ms * 1'000'000), "; expected: all of them to open the module; fix: look for what stopped them, or wait longer at the start"));
  return std::shared_ptr<World>(world);
}

World::~World() {
  executor_.run([this] {
    if (under_way_) {  // what messages may still come to stays
      for (auto& window : windows_) window.release();
      for (auto& [ranks, group] : groups_) group.levels.release();
    }
    groups_.clear();
    peers_.clear();
    windows_.clear();
  });
}

void World::join() {
  char error[TITAN_COMM_TEXT] = {};
  run_soon();
#ifdef __linux__
  if (options_.bytes_per_second > 0) prctl(PR_SET_TIMERSLACK, 1000ul);  // else each sleep takes 50 us more
#endif
  if (module_->open(&place_, error)) refuse(error);
  const auto ranks = static_cast<size_t>(size());
  hosts_.resize(ranks);
  gather_all(&place_.host, hosts_.data(), sizeof(int32_t), "joining");
  peers_.resize(ranks);

  const char* wanted = std::getenv("TITAN_EXCHANGE");
  if (wanted && *wanted && std::strcmp(wanted, "messages") && std::strcmp(wanted, "shared"))
    throw Failure(TITAN_STATUS_INVALID_ARGUMENT, text("TITAN_EXCHANGE is ", wanted, "; expected: shared or messages; fix: set it to one of these, or unset it"));
  struct Flags { uint64_t num_records; int32_t by_messages, mapped; char why[256]; } own = {options_.num_records, wanted && !std::strcmp(wanted, "messages"), 0, {}};
  std::vector<Flags> all(ranks);
  gather_all(&own, all.data(), sizeof own, "joining");
  for (size_t r = 0; r < ranks; r++)
    if (all[r].num_records != own.num_records)  // they read each other's
      refuse(text("rank ", r, " keeps ", all[r].num_records, " records and rank ", rank(), " ", own.num_records, "; expected: the same on all ranks; fix: start all with the same configuration"));
  const bool by_messages = std::any_of(all.begin(), all.end(), [](const Flags& f) { return f.by_messages; });
  std::string failed;
  if (!by_messages) {
    bool mapped = false;
    std::string why;
    add_window(block_bytes(), &mapped, &why);
    own.mapped = mapped;
    copy_text(own.why, why);
    gather_all(&own, all.data(), sizeof own, "joining");
    shares_ = std::all_of(all.begin(), all.end(), [](const Flags& f) { return f.mapped; });
    for (const Flags& flags : all)
      if (!flags.mapped && failed.empty()) failed = flags.why;
  }
  const bool one_host = std::all_of(hosts_.begin(), hosts_.end(), [&](int host) { return host == hosts_[0]; });
  exchange_ = shares_ ? one_host ? "shared memory" : "shared memory within a host, messages between hosts" : by_messages ? "messages (TITAN_EXCHANGE)" : text("messages: ", failed);
  if (shares_) {
    for (size_t r = 0; r < ranks; r++)
      if (!peers_[r].windows.empty()) peers_[r].block = reinterpret_cast<Block*>(peers_[r].windows[0]);
    block_ = reinterpret_cast<Block*>(windows_[0]->data());
  } else {
    own_block_ = std::vector<Seat>(block_bytes() / sizeof(Seat) + 1);
    block_ = reinterpret_cast<Block*>(own_block_.data());
    for (Peer& peer : peers_) peer.mappings.clear(), peer.windows.clear();
    windows_.clear();
    window_bytes_.clear();
  }
  sees_all_ = shares_ && one_host;
  block_->pid = getpid();
  gather_all(nullptr, nullptr, 0, "joining");
}

void World::describe(titan_comm_info& info) const {
  info = {};
  info.rank = static_cast<uint32_t>(rank());
  info.size = static_cast<uint32_t>(size());
  for (int r = 0; r < size(); r++) {
    if (hosts_[static_cast<size_t>(r)] != place_.host) continue;
    info.host_size++;
    if (r < rank()) info.host_rank++;
  }
  copy_text(info.exchange, exchange_);
  copy_text(info.version, place_.version);
  copy_text(info.processors, processors_);
}

void World::share_host(Device& device) {
  struct Own { Processors processors; uint64_t groups[32]; } own = {own_processors(device.engine->threads), {}};
  const std::vector<MemoryLimit> limits = memory_limits();
  for (size_t i = 0; i < std::min(std::size(own.groups), limits.size()); i++) own.groups[i] = limits[i].group;
  std::vector<Own> all(static_cast<size_t>(size()));
  executor_.run([&] { gather_all(&own, all.data(), sizeof own, "sharing the host"); });
  std::vector<Processors> here;
  MemorySharing memory;
  size_t self = 0;
  for (int r = 0; r < size(); r++) {
    if (hosts_[static_cast<size_t>(r)] != place_.host) continue;
    if (r == rank()) self = here.size();
    here.push_back(all[static_cast<size_t>(r)].processors);
    const std::set<uint64_t> groups(std::begin(all[static_cast<size_t>(r)].groups), std::end(all[static_cast<size_t>(r)].groups));
    for (const uint64_t group : groups) memory.of_group[group]++;  // 0, the machine, is everybody's
  }
  memory.processes = static_cast<int>(here.size());
  {
    std::lock_guard lock(device.mutex);
    device.memory_sharing = std::move(memory);
  }
  if (here.size() == 1) return;
  const Share share = share_of(here, self, cores_of_host());
  processors_ = share.text;
  if (!share.cores.empty()) device.executor.run([&] { device.engine->bind(share.cores); });
}

titan_comm_traffic World::traffic(uint32_t kind) const {
  const Traffic& own = traffic_[kind];
  return {own.collectives, own.tensors, own.sent_bytes};
}

void World::count(const Collective& collective) {
  Traffic& own = traffic_[collective.call.kind];
  own.collectives++;
  own.tensors += static_cast<uint64_t>(std::count_if(collective.tensors.begin(), collective.tensors.end(), [](const titan_comm_tensor& t) { return t.in || t.out; }));
  own.sent_bytes = own.sent_bytes + collective.sent_bytes();
}

void World::gather_all(const void* mine, void* all, uint64_t bytes, const char* what) {
  check_works();
  char error[TITAN_COMM_TEXT] = {}, none[1] = {};
  std::vector<char> some(bytes ? 0 : static_cast<size_t>(size()));
  Wait wait(*this, options_.start_timeout_ms, what);
  const titan_comm_wait interface = wait.interface();
  const int32_t result = module_->gather(nullptr, bytes ? mine : none, bytes ? all : some.data(), std::max<uint64_t>(bytes, 1), &interface, error);
  if (result) fail(static_cast<titan_comm_result>(result), wait, error, {});
}

void World::gather(const void* mine, void* all, uint64_t bytes) {
  try {
    executor_.run([&] { gather_all(mine, all, bytes, "gathering from the host"); });
  } catch (...) {
    const Failure failure = Failure::caught();
    give_up(failure.what());
    tell();
    throw failure;
  }
}

/// Makes memory and maps that of the others of this host; where that fails, says why and goes on, since all ranks take the same steps.
int World::add_window(uint64_t bytes, bool* mapped, std::string* why) {
  WindowPlace own = {getpid(), -1, bytes, 0};
  std::unique_ptr<Window> window;
  *mapped = true;
  const auto attempt = [&](auto&& body) {
    try {
      body();
    } catch (...) {
      if (*mapped) *why = Failure::caught().what();
      *mapped = false;
    }
  };
  attempt([&] { window = std::make_unique<Window>(bytes); });
  if (window) own = window->place();
  std::vector<WindowPlace> offers(static_cast<size_t>(size()));
  gather_all(&own, offers.data(), sizeof own, "sharing memory");
  for (int r = 0; r < size(); r++) {
    Peer& peer = peers_[static_cast<size_t>(r)];
    const WindowPlace& offer = offers[static_cast<size_t>(r)];
    if (hosts_[static_cast<size_t>(r)] != place_.host) continue;
    std::unique_ptr<Mapping> mapping;
    if (r != rank() && offer.descriptor >= 0) attempt([&] { mapping = std::make_unique<Mapping>(offer); });
    peer.windows.push_back(r == rank() ? window ? window->data() : nullptr : mapping ? mapping->data() : nullptr);
    peer.mappings.push_back(std::move(mapping));
  }
  gather_all(nullptr, nullptr, 0, "sharing memory");
  if (window) window->settle();
  window_bytes_.push_back(window ? window->bytes() : 0);
  windows_.push_back(std::move(window));
  return static_cast<int>(windows_.size()) - 1;
}

namespace {

/// What a rank says about its groups: each with its ranks, how many collectives the program has there, and a number made of them.
struct Agenda {
  std::vector<int> ranks;
  uint64_t count = 0, hash = 14695981039346656037u;
  void add(uint64_t word) { hash = (hash ^ word) * 1099511628211u; }
};

std::vector<Agenda> agendas(const std::vector<Collective>& collectives) {
  std::vector<Agenda> list;
  for (const Collective& collective : collectives) {
    auto it = std::find_if(list.begin(), list.end(), [&](const Agenda& a) { return a.ranks == collective.ranks; });
    if (it == list.end()) it = list.insert(list.end(), {collective.ranks});
    it->count++;
    for (const uint32_t word : {collective.call.kind, collective.call.dtype, collective.call.by, collective.call.num_tensors}) it->add(word);
    for (const auto& t : collective.tensors)
      for (const uint64_t word : {t.outer, t.chunk, t.in_run, t.out_run, uint64_t{t.from}, uint64_t{t.to}}) it->add(word);
  }
  return list;
}

bool has(const std::vector<int>& ranks, int rank) { return std::find(ranks.begin(), ranks.end(), rank) != ranks.end(); }

}  // namespace

/// Before anything can hang: ranks that meet in groups have the same groups in the same order, and the same collectives there.
void World::agree_on_groups(const std::vector<Collective>& collectives) {
  const std::vector<Agenda> own = agendas(collectives);
  std::vector<int64_t> words;
  for (const Agenda& a : own) {
    words.push_back(static_cast<int64_t>(a.ranks.size()));
    words.insert(words.end(), a.ranks.begin(), a.ranks.end());
    words.push_back(static_cast<int64_t>(a.count));
    words.push_back(static_cast<int64_t>(a.hash));
  }
  const auto length = static_cast<int64_t>(words.size());
  std::vector<int64_t> lengths(static_cast<size_t>(size()));
  gather_all(&length, lengths.data(), sizeof length, "loading a program");
  const auto longest = static_cast<size_t>(*std::max_element(lengths.begin(), lengths.end()));
  if (!longest) return;
  words.resize(longest);
  std::vector<int64_t> all(longest * static_cast<size_t>(size()));
  gather_all(words.data(), all.data(), longest * sizeof(int64_t), "loading a program");
  for (int r = 0; r < size(); r++) {
    if (r == rank()) continue;
    const int64_t* at = all.data() + longest * static_cast<size_t>(r);
    const int64_t* const end = at + lengths[static_cast<size_t>(r)];
    auto mine = own.begin();
    const auto next_shared = [&] { return std::find_if(mine, own.end(), [&](const Agenda& a) { return has(a.ranks, r); }); };
    const auto disagree = [&](const std::string& how) {
      const std::string why = text("ranks ", rank(), " and ", r, " load different programs: ", how, "; expected: the same graph on all ranks; fix: start all with the same configuration and version");
      broken_ = why;
      refuse(why);
    };
    while (at < end) {
      const auto count = static_cast<size_t>(*at++);
      const std::vector<int> ranks(at, at + count);
      const auto collectives_there = static_cast<uint64_t>(at[count]), hash = static_cast<uint64_t>(at[count + 1]);
      at += count + 2;
      if (!has(ranks, rank())) continue;
      mine = next_shared();
      if (mine == own.end() || mine->ranks != ranks) disagree(text("one exchanges over ", list(ranks), " where the other does not"));
      if (mine->count != collectives_there) disagree(text("over ", list(ranks), " one has ", mine->count, " collectives, the other ", collectives_there));
      if (mine->hash != hash) disagree(text("their ", mine->count, " collectives over ", list(ranks), " differ in kind, dtype or shape"));
      mine++;
    }
    mine = next_shared();
    if (mine != own.end()) disagree(text("one exchanges over ", list(mine->ranks), " where the other does not"));
  }
}

Group* World::group_of(const std::vector<int>& ranks) {
  if (const auto it = groups_.find(ranks); it != groups_.end()) return &it->second;
  Group group{ranks, nullptr, nullptr, nullptr};
  char error[TITAN_COMM_TEXT] = {};
  std::vector<int32_t> list(ranks.begin(), ranks.end());
  const auto failed = [&](int32_t result) {
    if (result) refuse(text("cannot make the group of ", comm::list(ranks), ": ", error));
  };
  failed(module_->group(list.data(), static_cast<int32_t>(list.size()), &group.handle, error));
  std::vector<int> hosts;
  for (const int r : ranks) hosts.push_back(hosts_[static_cast<size_t>(r)]);
  const bool here = std::all_of(hosts.begin(), hosts.end(), [&](int host) { return host == place_.host; });
  if (shares_ && (here || Hierarchical::is_worth(hosts))) {
    // Each rank counts its groups for itself, so the others ask where its seat in this one is.
    const auto seat = static_cast<int32_t>(groups_.size());
    if (seat >= MOST_GROUPS) refuse(text("a rank is in more than ", MOST_GROUPS, " groups; expected: at most these"));
    std::vector<int32_t> seats(ranks.size());
    Wait wait(*this, options_.start_timeout_ms, "making a group");
    const titan_comm_wait interface = wait.interface();
    if (const int32_t result = module_->gather(group.handle, &seat, seats.data(), sizeof seat, &interface, error)) fail(static_cast<titan_comm_result>(result), wait, error, {});
    std::vector<SharedGroup::Member> members;
    int self = 0, number = 0;  // of this rank: among the members here, and among all
    for (size_t m = 0; m < ranks.size(); m++) {
      if (hosts[m] != place_.host) continue;
      Peer& peer = peers_[static_cast<size_t>(ranks[m])];
      if (ranks[m] == rank()) self = static_cast<int>(members.size()), number = static_cast<int>(m);
      members.push_back({&peer.block->seats[seats[m]], &peer.windows, static_cast<int>(m)});
    }
    SharedGroup shared(std::move(members), self);
    if (here) group.shared = std::make_unique<SharedGroup>(std::move(shared));
    else group.levels = std::make_unique<Hierarchical>(hosts, number, std::move(shared));
  }
  return &groups_.emplace(ranks, std::move(group)).first->second;
}

Loading World::load(uint64_t arena_bytes, const std::vector<Collective>& collectives, bool shares_arena) {
  Loading loading;
  for (const Collective& collective : collectives) {
    const bool all = std::all_of(collective.ranks.begin(), collective.ranks.end(), [&](int r) { return r < size(); });
    if (!all || !has(collective.ranks, rank()))
      throw Failure(TITAN_STATUS_INVALID_PROGRAM, text("a collective is over ", list(collective.ranks), "; expected: this rank, ", rank(), ", among them and all below ", size()));
    if (collective.member >= 0 && collective.ranks[static_cast<size_t>(collective.member)] != rank())
      throw Failure(TITAN_STATUS_INVALID_PROGRAM, text("an exchange over ", list(collective.ranks), " is that of member ", collective.member, "; expected: of rank ", rank(), ", which loads it"));
  }
  agree_on_groups(collectives);
  if (shares_ && shares_arena) {
    struct Answer { int32_t mapped; char why[256]; } own = {};
    std::vector<Answer> answers(static_cast<size_t>(size()));
    bool mapped = false;
    std::string why;
    loading.number = add_window(arena_bytes, &mapped, &why);
    own.mapped = mapped;
    copy_text(own.why, why);
    gather_all(&own, answers.data(), sizeof own, "loading a program");
    for (int r = 0; r < size(); r++)
      if (const Answer& answer = answers[static_cast<size_t>(r)]; !answer.mapped) {
        release(loading.number);
        throw Failure(TITAN_STATUS_OUT_OF_MEMORY, text("rank ", r, " cannot share the program's arena: ", answer.why));
      }
    loading.memory = windows_[static_cast<size_t>(loading.number)]->data();
  }
  for (const Collective& collective : collectives) loading.groups.push_back(group_of(collective.ranks));
  return loading;
}

void World::release(int number) {
  if (under_way_) return;
  const auto n = static_cast<size_t>(number);
  windows_[n].reset();
  window_bytes_[n] = 0;
  for (Peer& peer : peers_)
    if (n < peer.mappings.size()) peer.mappings[n].reset();
}

std::string World::text_of(const Collective& collective, const Group& group, const std::string& scope, uint64_t number) {
  return text(COLLECTIVES[collective.call.kind].name, " ", number, " over ", list(group.ranks), " in ", scope.empty() ? "the graph" : scope);
}

Record& World::begin(const Collective& collective, const Group& group, const std::string& scope) {
  const uint64_t number = block_->num_records.load(std::memory_order_relaxed), begun = now_ns(), kept = options_.num_records;
  Record& record = kept ? block_->record(number, kept) : unkept_;
  record = {number, begun, 0, collective.bytes, collective.call.kind, collective.call.dtype, collective.call.num_tensors, static_cast<uint32_t>(group.ranks.size()), {}};
  copy_text(record.scope, scope);
  block_->num_records.store(number + 1, std::memory_order_release);
  return record;
}

void World::run(const Collective& collective, Group& group, const std::string& scope, bool starting) {
  check_works();
  Record& record = begin(collective, group, scope);
  const uint64_t begun = record.begin_ns;
  titan_comm_call call = collective.call;
  call.tensors = collective.tensors.data();
  Wait wait(*this, starting ? options_.start_timeout_ms : options_.timeout_ms, {});
  const titan_comm_wait interface = wait.interface(), sleeper = wait.interface_of_sleeper();
  Hierarchical* const levels = Hierarchical::runs(call.kind) ? group.levels.get() : nullptr;
  titan_comm_result result;
  std::string error;
  if (group.shared) {
    result = group.shared->run(call, window_bytes_, sleeper, &error);
  } else {
    char why[TITAN_COMM_TEXT] = {};
    under_way_ = true;
    if (levels) {
      result = levels->run(call, window_bytes_, {*module_, group.handle, interface}, sleeper, &error);
    } else {
      result = static_cast<titan_comm_result>(module_->run(group.handle, &call, &interface, why));
      if (result) error = why;
    }
    if (!result) under_way_ = false;
  }
  if (result != TITAN_COMM_OK) {
    std::vector<int> missing;
    if (group.shared || levels)
      for (const int member : group.shared ? group.shared->missing() : levels->missing()) missing.push_back(group.ranks[static_cast<size_t>(member)]);
    wait.what = text_of(collective, group, scope, record.number);
    // Of whom it says what they last did: who is not there, else all.
    fail(result, wait, error, missing.empty() && result == TITAN_COMM_FAILED ? group.ranks : missing);
  }
  count(collective);
  if (options_.bytes_per_second > 0) {
    // A link as slow as this would have taken so long from when all had come.
    const uint64_t took = collective.link_ns(options_.bytes_per_second, options_.latency_ns);
    const uint64_t end = (group.shared ? group.shared->met_ns() : begun) + took, now = now_ns();
    if (end > now) std::this_thread::sleep_for(std::chrono::nanoseconds(end - now));
  }
  record.end_ns = now_ns();
}

void World::fail(titan_comm_result result, const Wait& wait, const std::string& error, const std::vector<int>& missing) {
  std::string why = wait.what;
  if (result == TITAN_COMM_FAILED) why += text(" failed: ", error);
  else if (wait.lost >= 0) why += text(" cannot end: rank ", wait.lost, " ", wait.loss);
  else why += text(" did not end within ", seconds(wait.timeout_ms * 1'000'000), missing.empty() ? "" : text(": ", list(missing), missing.size() == 1 ? " has" : " have", " not come"));
  for (const int r : missing) why += text("; rank ", r, "'s last: ", last_of(r));
  why += text("; this rank's last: ", last_of(rank()));
  if (wait.lost < 0) why += "; expected: all ranks to run the same collectives in the same order, and to keep pace; fix: look at what the named ranks do, or allow more time";
  broken_ = why;
  give_up(why.c_str());
  tell_now();
  refuse(why);
}

void World::look(uint64_t since_ns, uint64_t timeout_ms, const std::string& what, const std::string& error, const std::vector<int>& missing) {
  check_works();
  Wait wait(*this, timeout_ms, what);
  wait.begun = since_ns, wait.looked = looks_++;
  if (!error.empty() || !wait.look()) fail(error.empty() ? TITAN_COMM_GAVE_UP : TITAN_COMM_FAILED, wait, error, missing);
}

void World::check_works() const {
  if (!broken_.empty()) refuse(broken_);
  if (block_ && block_->state.load() == Block::gave_up) refuse(text("this rank gave up before: ", block_->reason));
}

void World::tell() {
  executor_.run([this] { tell_now(); });
}

void World::tell_now() {
  if (sees_all_ || told_ || !block_ || block_->state.load() != Block::gave_up) return;
  told_ = true;
  module_->give_up(block_->reason);
}

void World::give_up(const char* why) noexcept {
  uint32_t works = Block::works;
  if (!block_ || !block_->state.compare_exchange_strong(works, Block::gives_up)) return;
  copy_text(block_->reason, why);
  block_->state.store(Block::gave_up, std::memory_order_release);
}

std::string World::last_of(int rank) const {
  const Block* block = rank == this->rank() ? block_ : peers_[static_cast<size_t>(rank)].block;
  if (!block) return "not known, it is on another host";
  const uint64_t count = block->num_records.load(std::memory_order_acquire), kept = options_.num_records;
  return !kept ? "not recorded" : count ? comm::describe(block->record(count - 1, kept), now_ns()) : "none";
}

std::string World::record() const {
  std::string out;
  const uint64_t now = now_ns(), kept = options_.num_records;
  for (int r = 0; r < size(); r++) {
    const Block* block = r == rank() ? block_ : peers_[static_cast<size_t>(r)].block;
    if (!block) continue;
    const uint64_t count = block->num_records.load(std::memory_order_acquire);
    out += text("rank ", r, ": ", count, " collectives", count && kept ? ", the last of them:\n" : "\n");
    for (uint64_t n = count < kept ? 0 : count - kept; n < count; n++) out += text("  ", comm::describe(block->record(n, kept), now), "\n");
  }
  return out;
}

void World::leave() {
  executor_.run([this] {
    // Without the others there is no leaving: they may have ended, and the module would wait for them.
    gather_all(nullptr, nullptr, 0, "leaving");
    broken_ = "this rank has left the others; expected: no collectives behind that";
    char error[TITAN_COMM_TEXT] = {};
    if (module_->close(error)) refuse(error);
  });
}

}  // namespace titan::comm
