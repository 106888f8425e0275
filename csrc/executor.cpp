#include "executor.h"

#include <omp.h>
#include <signal.h>
#include <sys/mman.h>
#ifdef __linux__
#include <linux/prctl.h>
#include <sys/prctl.h>
#endif
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <utility>

#include "clock.h"
#include "comm/world.h"

namespace titan {
namespace {

// At exit the C library unloads BLAS and OpenMP under a running executor. So a halt lets the kernels that run end, and no other begin.
std::atomic<bool> halting{false};
std::atomic<int> running{0};

/// The first element that is not finite, in row-major order, or -1.
template <class real> int64_t find_not_finite(const Tensor& tensor) {
  int64_t elements = 1;
  for (int d = 0; d < tensor.rank; d++) elements *= tensor.dims[d];
  const int64_t row = tensor.rank ? tensor.dims[tensor.rank - 1] : 1, stride = tensor.rank ? tensor.strides[tensor.rank - 1] : 0;
  for (int64_t start = 0; start < elements; start += row) {
    int64_t offset = 0, index = start;
    for (int d = tensor.rank - 1; d >= 0; d--) {
      offset += index % tensor.dims[d] * tensor.strides[d];
      index /= tensor.dims[d];
    }
    const real* data = tensor.as<real>() + offset;
    for (int64_t i = 0; i < row; i++)
      if (!(data[i * stride] - data[i * stride] == 0)) return start + i;
  }
  return -1;
}

constexpr uint64_t HUGE_PAGE = uint64_t{2} << 20;
const uint64_t PAGE = static_cast<uint64_t>(sysconf(_SC_PAGE_SIZE));

/// Asks for huge pages in memory that processes share: by default Linux gives it none of its own accord, whatever madvise says before.
class HugePages {
 public:
  /// Of a whole huge page, of which one small page is in use; that one says on which node of the machine it is to be.
  void ask([[maybe_unused]] char* block) {
#ifdef MADV_COLLAPSE
    // A tenth of a millisecond each, but hundreds of times that on machines that are busy with something else: then the rest stay small.
    if (took_ns_ > MOST_NS + MOST_NS_EACH * asked_) return;
    const uint64_t begun = now_ns();
    madvise(block, HUGE_PAGE, MADV_COLLAPSE);
    took_ns_ += now_ns() - begun;
    asked_++;
#endif
  }

 private:
  static constexpr uint64_t MOST_NS = 50'000'000, MOST_NS_EACH = 1'000'000;
  uint64_t asked_ = 0, took_ns_ = 0;
};

}  // namespace

void run_kernel(const Kernel& kernel, const Call& call) {
  running++;
  if (halting) {
    running--;
    for (;;) pause();
  }
  kernel.run(call);
  running--;
}

void stop_at_exit() {
  if (halting)
    for (;;) pause();
}

void halt_executors() {
  halting = true;
  for (int waited_ms = 0; running && waited_ms < 10'000; waited_ms++) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

Executor::Executor(int threads) : threads_(threads) {
  // The executor and its team take no signals: those are for the threads of the host process.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { serve(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Executor::~Executor() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  posted_.notify_one();
  thread_.join();
}

void Executor::post(Job& job) {
  std::lock_guard lock(mutex_);
  (first_ ? last_->next : first_) = &job;
  last_ = &job;
  posted_.notify_one();
}

std::exception_ptr Executor::join(Job& job) {
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [&] { return job.done; });
  return job.thrown;
}

void Executor::wait(Job& job) {
  if (const std::exception_ptr thrown = join(job)) std::rethrow_exception(thrown);
}

bool Executor::wait_for(Job& job, uint64_t milliseconds) {
  std::unique_lock lock(mutex_);
  if (!finished_.wait_for(lock, std::chrono::milliseconds(milliseconds), [&] { return job.done; })) return false;
  if (job.thrown) std::rethrow_exception(job.thrown);
  return true;
}

void Executor::serve() {
  omp_set_dynamic(0);
  omp_set_num_threads(threads_);
  std::unique_lock lock(mutex_);
  for (;;) {
    posted_.wait(lock, [&] { return first_ || closing_; });
    if (!first_) return;
    Job& job = *first_;
    first_ = job.next;
    lock.unlock();
    try {
      job.call(job.work);
    } catch (...) {
      job.thrown = std::current_exception();
    }
    lock.lock();
    job.done = true;
    finished_.notify_all();
  }
}

#ifdef __linux__
void Executor::bind(std::vector<cpu_set_t> sets) {
  static std::atomic<uint64_t> bindings{0};
  run([&] {
    sets_ = std::move(sets);
    binding_ = ++bindings;
    use_threads(threads_);
  });
}
#endif

void Executor::use_threads(int threads) {
  omp_set_num_threads(threads);
#ifdef __linux__
  if (sets_.empty()) return;
  // A team that was smaller for a while has ended threads, and makes others, which begin where this thread is.
#pragma omp parallel num_threads(threads)
  {
    thread_local uint64_t binding = 0;
    const cpu_set_t& set = sets_[static_cast<size_t>(omp_get_thread_num()) % sets_.size()];
    if (std::exchange(binding, binding_) != binding_) sched_setaffinity(0, sizeof set, &set);
  }
#endif
}

Arena::Arena(uint64_t bytes, char* shared) : bytes_(bytes), mapped_bytes_(std::max(PAGE, (bytes + PAGE - 1) / PAGE * PAGE)) {
  const uint64_t available = memory_of({}).available;
  const auto refuse = [&] {
    throw Failure(TITAN_STATUS_OUT_OF_MEMORY, text("the program's arena takes ", bytes, " bytes; expected: at most ", available,
                                                   ", the memory that is there for this process; fix: a smaller batch or model"));
  };
  if (bytes > available) refuse();
  if (shared) {
    data_ = shared;
    owns_ = false;
    return;
  }
  // Map one huge page more than needed and give back what lies outside the aligned part: what stays is as large as planned.
  void* mapped = mmap(nullptr, mapped_bytes_ + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) refuse();
  char* start = static_cast<char*>(mapped);
  data_ = start + (HUGE_PAGE - reinterpret_cast<uintptr_t>(start) % HUGE_PAGE) % HUGE_PAGE;
  if (data_ != start) munmap(start, static_cast<size_t>(data_ - start));
  if (data_ != start + HUGE_PAGE) munmap(data_ + mapped_bytes_, static_cast<size_t>(start + HUGE_PAGE - data_));
#ifdef MADV_HUGEPAGE
  if (bytes >= HUGE_PAGE) madvise(data_, mapped_bytes_, MADV_HUGEPAGE);
#endif
#ifdef PR_SET_VMA
  // For people who read /proc/PID/smaps; kernels without names for memory refuse it.
  prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, data_, mapped_bytes_, "libtitan arena");
#endif
}

Arena::~Arena() {
  if (owns_) munmap(data_, mapped_bytes_);
}

void Arena::touch(int threads) {
  const auto blocks = static_cast<int64_t>((bytes_ + HUGE_PAGE - 1) / HUGE_PAGE);
#pragma omp parallel num_threads(threads)
  {
    HugePages huge;
#pragma omp for schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
      const uint64_t begin = static_cast<uint64_t>(block) * HUGE_PAGE, end = std::min(begin + HUGE_PAGE, mapped_bytes_);
      volatile char* data = data_;
      data[begin] = 0;
      if (!owns_ && end - begin == HUGE_PAGE) huge.ask(data_ + begin);
      for (uint64_t at = begin + PAGE; at < end; at += PAGE) data[at] = 0;
    }
  }
}

uint64_t Arena::huge_bytes() const {
  uint64_t bytes = 0;
  FILE* file = std::fopen("/proc/self/smaps", "r");
  if (!file) return bytes;
  const auto begin = reinterpret_cast<uintptr_t>(data_), end = begin + mapped_bytes_;
  char line[512];
  bool inside = false;
  while (std::fgets(line, sizeof line, file)) {
    unsigned long long first = 0, last = 0, kilobytes = 0;
    if (std::sscanf(line, "%llx-%llx ", &first, &last) == 2) inside = first < end && begin < last;
    else if (inside && (std::sscanf(line, "AnonHugePages: %llu", &kilobytes) == 1 || std::sscanf(line, "ShmemPmdMapped: %llu", &kilobytes) == 1)) bytes += kilobytes << 10;
  }
  std::fclose(file);
  return std::min(bytes, mapped_bytes_);
}

void Progress::begin() {
  for (auto& done : done_) done = 0;
  stopped_by_ = NOBODY;
}

void Progress::advance(uint32_t stream) {
  auto& done = done_[stream];
  // Once stopped it stays so: only this stream counts here, but the other may stop both.
  uint64_t n = done.load(std::memory_order_relaxed);
  if (n != UINT64_MAX) done.compare_exchange_strong(n, n + 1, std::memory_order_release, std::memory_order_relaxed);
  done.notify_all();
}

void Progress::stop(uint32_t stream) {
  int none = NOBODY;
  stopped_by_.compare_exchange_strong(none, static_cast<int>(stream));
  for (auto& done : done_) {
    done.store(UINT64_MAX, std::memory_order_release);
    done.notify_all();
  }
}

bool Progress::wait(uint32_t stream, uint64_t n) const {
  const auto& other = done_[stream];
  for (uint64_t done; (done = other.load(std::memory_order_acquire)) < n;) other.wait(done, std::memory_order_acquire);
  return stopped_by_ == NOBODY;
}

namespace {

std::vector<comm::Collective> collectives_of(const Device& device, const Program& program) {
  std::vector<comm::Collective> list;
  for (uint64_t n = 0; n < program.instructions.size(); n++) {
    const Instruction& instruction = program.instructions[n];
    if (instruction.kernel->run) continue;
    if (!device.world)
      throw program.failure(TITAN_STATUS_INVALID_PROGRAM, n, text("instruction ", n, " is a collective (", instruction.kernel->name, "), but the device works alone; expected: one that has joined other ranks; fix: titan_comm_open, with processes that mpirun started"));
    list.push_back(comm::read_collective(static_cast<int>(instruction.index) - device.backend.num_kernels, instruction.call));
  }
  return list;
}


comm::Loading load_together(const Device& device, const Program& program, const std::vector<comm::Collective>& collectives) {
  comm::Loading loading;
  if (device.world) device.world->executor().run([&] { loading = device.world->load(program.arena_bytes, collectives); });
  return loading;
}

}  // namespace

std::shared_ptr<LoadedProgram> LoadedProgram::load(const std::shared_ptr<Device>& device, const uint8_t* bytes, uint64_t num_bytes) {
  try {
    return std::make_shared<LoadedProgram>(device, bytes, num_bytes);
  } catch (...) {
    const Failure failure = Failure::caught();
    if (device->world) {
      device->world->give_up(failure.what());  // else the others would wait for this rank
      device->world->tell();
    }
    throw failure;
  }
}

LoadedProgram::LoadedProgram(std::shared_ptr<Device> device, const uint8_t* bytes, uint64_t num_bytes)
    : device_(std::move(device)),
      program_(load_program(device_->backend, device_->executor.threads(), bytes, num_bytes)),
      collectives_(collectives_of(*device_, program_)),
      loading_(load_together(*device_, program_, collectives_)),
      arena_(program_.arena_bytes, loading_.memory) {
  program_.bind(arena_.data());
  for (auto& last : last_) last.resize(program_.sections.size());
  auto it = collectives_.begin();
  for (const Instruction& instruction : program_.instructions)
    if (!instruction.kernel->run) *it++ = comm::read_collective(static_cast<int>(instruction.index) - device_->backend.num_kernels, instruction.call);
  device_->executor.run([this] { arena_.touch(program_.threads); });
  huge_bytes_ = arena_.huge_bytes();
}

LoadedProgram::~LoadedProgram() {
  if (device_->world && device_->world->keeps_memory()) arena_.keep();
  if (loading_.memory) device_->world->executor().run([this] { device_->world->release(loading_.number); });
}

void LoadedProgram::run(const titan_action* actions, uint64_t num_actions, const Host& host) {
  for (uint64_t i = 0; i < num_actions; i++) check_action(actions[i], i, host);
  auto run_all = [&] {
    device_->executor.use_threads(program_.threads);
    titan_profile_record* records = std::exchange(records_, nullptr);
    if (records) check_capacity(actions, num_actions, record_capacity_);
    const auto exchanges = [&](const titan_action& action) { return program_.sections[action.section].num_on[1] > 0; };
    run_streams({actions, num_actions, host, records, std::any_of(actions, actions + num_actions, exchanges)});
    has_run_ = true;
  };
  try {
    device_->executor.run(run_all);
  } catch (...) {
    if (!collectives_.empty()) device_->world->tell();
    throw;
  }
}

void LoadedProgram::profile(titan_profile_record* records, uint64_t capacity) {
  device_->executor.run([&] { records_ = records, record_capacity_ = capacity; });
}

void LoadedProgram::check_capacity(const titan_action* actions, uint64_t num_actions, uint64_t capacity) const {
  uint64_t needed = 0;
  for (uint64_t i = 0; i < num_actions; i++) needed += program_.sections[actions[i].section].num_instructions;
  if (needed > capacity) throw Failure(TITAN_STATUS_INVALID_ARGUMENT, text("the run has ", needed, " instructions; expected: at most ", capacity, ", the records that there is room for"));
}

void LoadedProgram::check_action(const titan_action& action, uint64_t i, const Host& host) const {
  const auto refuse = [&](const std::string& why) {
    Failure failure(TITAN_STATUS_INVALID_ARGUMENT, text("action ", i, " ", why));
    throw failure.at(static_cast<int32_t>(action.section), -1, "", "");
  };
  if (action.section >= program_.sections.size()) refuse(text("runs section ", action.section, "; expected: below ", program_.sections.size()));
  if (action.slot >= program_.slots) refuse(text("has slot ", action.slot, "; expected: below ", program_.slots));
  if (action.reserved) refuse(text("has reserved word ", action.reserved, "; expected: 0"));
  if (action.flags & ~uint32_t{TITAN_FLAG_FIRST | TITAN_FLAG_CHECK_FINITE | TITAN_FLAG_LAST}) refuse(text("has flags ", action.flags, "; expected: a sum of 1 (first), 2 (check finite) and 4 (last)"));
  const Section& section = program_.sections[action.section];
  const auto check_buffer = [&](const char* name, const uint8_t* buffer, uint64_t bytes, uint64_t base, uint64_t needed) {
    if (!needed) return;
    if (base > bytes || needed > bytes - base)
      refuse(text("(", section.name, ") needs ", needed, " bytes of ", name, " from its base ", base, " on; expected: to fit the ", bytes, " bytes that were passed"));
    if (!buffer) refuse(text("(", section.name, ") needs ", name, ", which is null"));
    if ((reinterpret_cast<uintptr_t>(buffer) | base) % 8) refuse(text("(", section.name, ") has ", name, " at an odd address or base ", base, "; expected: multiples of 8"));
  };
  check_buffer("input", host.input, host.input_bytes, action.input_base, section.input_bytes);
  check_buffer("output", host.output, host.output_bytes, action.output_base, section.output_bytes);
}

void LoadedProgram::run_streams(const Run& run) {
  progress_.begin();
  if (!run.together) return run_stream(0, run);
  // The comm thread runs the collectives of all actions beside the kernels. It uses this run until it has ended, however the kernels end.
  Executor& comm = device_->world->executor();
  auto run_comm = [&] { run_stream(1, run); };
  Executor::Job job(run_comm);
  comm.post(job);
  std::exception_ptr thrown[NUM_STREAMS];
  try {
    run_stream(0, run);
  } catch (...) {
    thrown[0] = std::current_exception();
  }
  thrown[1] = comm.join(job);
  if (const int first = progress_.stopped_by(); first != Progress::NOBODY) std::rethrow_exception(thrown[first]);
}

namespace {

constexpr uint64_t NEVER = UINT64_MAX;

}  // namespace

void LoadedProgram::run_stream(uint32_t stream, const Run& run) {
  for (Before& last : last_[stream]) last.on[0] = NEVER;
  Before before{};
  titan_profile_record* records = run.records;
  for (uint64_t i = 0; i < run.num_actions; i++) {
    const uint64_t number = run.actions[i].section;
    const Section& section = program_.sections[number];
    if (section.num_on[stream] && !run_section(stream, run, i, before, records)) return;
    last_[stream][number] = before;
    for (uint32_t s = 0; s < NUM_STREAMS; s++) before.on[s] += section.num_on[s];
    if (records) records += section.num_instructions;
  }
}

void LoadedProgram::place_host_operands(const Section& section, const titan_action& action, const Host& host) {
  for (const uint32_t operand : section.host_operands) {
    const Place& place = program_.places[operand];
    program_.operands[operand].data = place.space == Space::input ? const_cast<uint8_t*>(host.input) + action.input_base + place.offset
                                                                  : host.output + action.output_base + place.offset;
  }
}

bool LoadedProgram::may_begin(uint32_t stream, const Instruction& instruction, const Before& before) const {
  for (uint64_t w = instruction.first_wait; w < instruction.first_wait + instruction.num_waits; w++) {
    const Wait& wait = program_.waits[w];
    const Before& then = wait.same_action ? before : last_[stream][wait.section];
    if (then.on[0] != NEVER && !progress_.wait(wait.stream, then.on[wait.stream] + wait.position)) return false;
  }
  return true;
}

bool LoadedProgram::run_section(uint32_t stream, const Run& run, uint64_t i, const Before& before, titan_profile_record* records) {
  const titan_action& action = run.actions[i];
  const Section& section = program_.sections[action.section];
  // Collectives have no operands in the host's buffers.
  if (stream == 0) place_host_operands(section, action, run.host);
  struct Inside {
    Access& access;
    uint32_t stream;
    ~Inside() { access.end(stream); }
  };
  access_.begin(stream, section.writes[stream]);
  const Inside inside{access_, stream};
  uint64_t n = section.first_instruction;
  try {
    for (; n < section.first_instruction + section.num_instructions; n++) {
      Instruction& instruction = program_.instructions[n];
      if (instruction.stream != stream) continue;
      if (!may_begin(stream, instruction, before)) return false;
      instruction.call.flags = action.flags;
      const uint64_t begin = records ? now_ns() : 0;
      if (stream == 0) run_kernel(*instruction.kernel, instruction.call);
      else run_collective(instruction);
      if (records) records[n - section.first_instruction] = {begin, now_ns(), n, static_cast<uint32_t>(i), stream};
      if (action.flags & FLAG_CHECK_FINITE) check_finite(n);
      if (run.together) progress_.advance(stream);
    }
  } catch (...) {
    const Instruction& instruction = program_.instructions[n];
    const Failure failure = Failure::caught(instruction.kernel->name, instruction.scope.c_str()).at(static_cast<int32_t>(action.section), static_cast<int64_t>(n), instruction.kernel->name, instruction.scope);
    progress_.stop(stream);
    if (!collectives_.empty()) device_->world->give_up(failure.what());  // else the others would wait for this rank
    throw failure;
  }
  return true;
}

void LoadedProgram::run_collective(const Instruction& instruction) {
  const comm::Collective& collective = collectives_[instruction.collective];
  if (collective.last && !(instruction.call.flags & FLAG_LAST)) return;
  device_->world->run(collective, *loading_.groups[instruction.collective], instruction.scope, !has_run_);
}

void LoadedProgram::check_finite(uint64_t n) const {
  const Instruction& instruction = program_.instructions[n];
  for (int i = instruction.first_output; i < instruction.first_output + instruction.num_outputs; i++) {
    const Tensor& tensor = instruction.call[i];
    const int64_t element = tensor.dtype == DType::f32    ? find_not_finite<float>(tensor)
                            : tensor.dtype == DType::f64  ? find_not_finite<double>(tensor)
                            : tensor.dtype == DType::bf16 ? find_not_finite<bf16>(tensor)
                                                          : -1;
    if (element < 0) continue;
    throw program_.failure(TITAN_STATUS_NOT_FINITE, n, text("instruction ", n, " (", instruction.kernel->name, " in ", instruction.scope, ") made output ",
                                                            program_.operand_name(n, i), " infinite or NaN, first at element ", element));
  }
}

char* LoadedProgram::range(uint64_t offset, uint64_t num_bytes) const {
  if (offset > program_.arena_bytes || num_bytes > program_.arena_bytes - offset)
    throw Failure(TITAN_STATUS_INVALID_ARGUMENT,
                  text(num_bytes, " bytes from ", offset, " on are outside the arena; expected: to end by ", program_.arena_bytes));
  return arena_.data() + offset;
}

void LoadedProgram::read(uint64_t offset, uint8_t* bytes, uint64_t num_bytes) {
  const char* from = range(offset, num_bytes);
  access_.read({offset, offset + num_bytes}, [&] { std::copy_n(from, num_bytes, bytes); });
}

void LoadedProgram::write(uint64_t offset, const uint8_t* bytes, uint64_t num_bytes) {
  char* to = range(offset, num_bytes);
  access_.write({offset, offset + num_bytes}, [&] { std::copy_n(bytes, num_bytes, to); });
}

titan_memory LoadedProgram::memory() const { return {program_.arena_bytes, program_.input_bytes, program_.output_bytes, program_.table_bytes(), huge_bytes_}; }

}  // namespace titan
