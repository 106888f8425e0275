// Mutates encoded programs and has the loader read them: it has to refuse what is malformed by a Failure, and what it accepts must stay inside
// of its buffers. Built with -DTITAN_SANITIZE=address, whatever else goes wrong ends the process.
//   fuzz_program [--seconds 60] [--seed 1] [--save FOLDER] PROGRAM...   mutates these; the same seed makes the same mutants
//   fuzz_program --replay FILE                                          loads one file, such as a mutant that was saved
// The mutant that was being loaded when something went wrong is saved in FOLDER, and its path printed.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <unordered_set>
#include <vector>

#include "../comm/collective.h"
#include "../cpu/backend.h"
#include "../program.h"
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

using namespace titan;

namespace {

using Bytes = std::vector<uint8_t>;
struct alignas(64) Bytes64 {
  uint8_t bytes[64];
};

constexpr int THREADS = 2, LONGEST_LOAD_S = 10;
constexpr size_t POOL = 64;  // of mutants that were accepted, to go on from
// The tables of program.cpp: where the header counts them, and how long their entries are.
constexpr int TABLES = 7;
constexpr uint64_t HEADER_BYTES = 128, COUNTS = 40, ENTRY_BYTES[TABLES] = {128, 32, 48, 8, 4, 8, 1};

// What the program says when it dies, which may be anywhere: nothing here is allocated then.
const Bytes* loading = nullptr;
char save_path[4096];

void save_loading() {
  if (!loading) return;
  const int file = open(save_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  const bool saved = file >= 0 && write(file, loading->data(), loading->size()) == static_cast<ssize_t>(loading->size());
  if (file >= 0) close(file);
  dprintf(STDERR_FILENO, "fuzz_program: %s %s\n", saved ? "the mutant is saved; fuzz_program --replay" : "cannot save the mutant as", save_path);
  loading = nullptr;
}

[[noreturn]] void finding(const std::string& what) {
  dprintf(STDERR_FILENO, "fuzz_program: %s\n", what.c_str());
  save_loading();
  std::_Exit(1);
}

void on_signal(int signal) {
  dprintf(STDERR_FILENO, signal == SIGALRM ? "fuzz_program: a load took longer than %d s\n" : "fuzz_program: the process was aborted\n", LONGEST_LOAD_S);
  save_loading();
  _exit(1);
}

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  uint64_t below(uint64_t n) { return n ? engine_() % n : 0; }
  bool one_in(uint64_t n) { return below(n) == 0; }
  /// Small, near a power of two, near the largest, or any.
  uint64_t number() {
    switch (below(4)) {
      case 0: return below(8);
      case 1: return (uint64_t{1} << below(64)) + below(3) - 1;
      case 2: return ~uint64_t{0} - below(64);
      default: return engine_();
    }
  }

 private:
  std::mt19937_64 engine_;
};

template <class T> T get(const Bytes& bytes, uint64_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}
template <class T> void set(Bytes& bytes, uint64_t at, T value) { std::memcpy(bytes.data() + at, &value, sizeof value); }

/// Where the tables of a program lie; cut to what is there where its header claims more.
struct Tables {
  uint64_t first[TABLES] = {}, count[TABLES] = {};
  explicit Tables(const Bytes& bytes) {
    uint64_t at = std::min<uint64_t>(HEADER_BYTES, bytes.size());
    for (int t = 0; t < TABLES; t++) {
      const uint64_t claimed = bytes.size() >= HEADER_BYTES ? get<uint64_t>(bytes, COUNTS + 8 * static_cast<uint64_t>(t)) : 0;
      first[t] = at;
      count[t] = std::min(claimed, (bytes.size() - at) / ENTRY_BYTES[t]);
      at = std::min<uint64_t>(bytes.size(), at + (count[t] * ENTRY_BYTES[t] + 7) / 8 * 8);
    }
  }
  uint64_t entry(int table, uint64_t i) const { return first[table] + i * ENTRY_BYTES[table]; }
};

class Mutator {
 public:
  Mutator(uint64_t seed, std::vector<Bytes> corpus) : random_(seed), corpus_(std::move(corpus)) {}

  Bytes next() {
    Bytes bytes = any();
    do mutate(bytes);
    while (random_.one_in(2));
    return bytes;
  }
  /// An accepted mutant is one to go on from.
  void accepted(const Bytes& bytes) {
    if (!random_.one_in(8)) return;
    if (pool_.size() < POOL) pool_.push_back(bytes);
    else pool_[random_.below(POOL)] = bytes;
  }

 private:
  const Bytes& any() { return !pool_.empty() && random_.one_in(2) ? pool_[random_.below(pool_.size())] : corpus_[random_.below(corpus_.size())]; }

  void mutate(Bytes& bytes) {
    if (bytes.size() < HEADER_BYTES) return;
    const Tables tables(bytes);
    const int table = static_cast<int>(random_.below(TABLES));
    const uint64_t count = tables.count[table], size = ENTRY_BYTES[table], i = tables.entry(table, random_.below(count)), j = tables.entry(table, random_.below(count));
    switch (random_.below(12)) {
      case 0: bytes[random_.below(bytes.size())] ^= static_cast<uint8_t>(1u << random_.below(8)); break;
      case 1: bytes[random_.below(bytes.size())] = static_cast<uint8_t>(random_.number()); break;
      case 2: set(bytes, word(random_.below(HEADER_BYTES), 8), random_.number()); break;
      case 3: resize(bytes); break;
      case 4: splice(bytes, tables, table); break;
      default:
        if (!count) break;
        switch (random_.below(8)) {
          case 0:
            if (i != j) std::swap_ranges(bytes.begin() + at(i), bytes.begin() + at(i + size), bytes.begin() + at(j));
            break;
          case 1: std::memmove(bytes.data() + i, bytes.data() + j, size); break;
          case 2: take_field(bytes, i, j, size); break;
          case 3: remove(bytes, table, i); break;
          case 4: set_field(bytes, i, size, tables.count[random_.below(TABLES)] + random_.below(3) - 1); break;
          default: set_field(bytes, i, size, random_.number()); break;
        }
    }
  }

  static std::ptrdiff_t at(uint64_t offset) { return static_cast<std::ptrdiff_t>(offset); }
  static uint64_t word(uint64_t offset, uint64_t size) { return offset / size * size; }

  /// A field of an entry becomes this number, or another that is near the one it had.
  void set_field(Bytes& bytes, uint64_t entry, uint64_t size, uint64_t number) {
    const bool wide = size >= 8 && random_.one_in(2);
    const uint64_t bytes_of = wide ? 8 : std::min<uint64_t>(size, 4), field = entry + word(random_.below(size), bytes_of);
    if (bytes_of == 1) bytes[field] = static_cast<uint8_t>(number);
    else if (wide) set(bytes, field, random_.one_in(2) ? get<uint64_t>(bytes, field) + random_.below(5) - 2 : number);
    else set(bytes, field, static_cast<uint32_t>(random_.one_in(2) ? get<uint32_t>(bytes, field) + random_.below(5) - 2 : number));
  }

  /// A field of one entry becomes that of another.
  void take_field(Bytes& bytes, uint64_t to, uint64_t from, uint64_t size) {
    const uint64_t bytes_of = size >= 8 ? 8 : size, field = word(random_.below(size), bytes_of);
    std::memmove(bytes.data() + to + field, bytes.data() + from + field, bytes_of);
  }

  static void change_count(Bytes& bytes, int table, uint64_t change) {
    const uint64_t field = COUNTS + 8 * static_cast<uint64_t>(table);
    set(bytes, field, get<uint64_t>(bytes, field) + change);
  }

  /// An entry goes; the header knows of it, most of the time.
  void remove(Bytes& bytes, int table, uint64_t entry) {
    if (!random_.one_in(8)) change_count(bytes, table, ~uint64_t{0});
    bytes.erase(bytes.begin() + at(entry), bytes.begin() + at(entry + ENTRY_BYTES[table]));
  }

  /// Entries of another program come into the same table, over what is there or in between.
  void splice(Bytes& bytes, const Tables& tables, int table) {
    const Bytes& other = any();
    if (other.size() < HEADER_BYTES) return;
    const Tables from(other);
    if (!from.count[table]) return;
    const uint64_t start = random_.below(from.count[table]), n = 1 + random_.below(std::min<uint64_t>(from.count[table] - start, 8)), size = ENTRY_BYTES[table];
    const uint64_t to = tables.entry(table, random_.below(tables.count[table] + 1)), length = n * size;
    const Bytes piece(other.begin() + at(from.entry(table, start)), other.begin() + at(from.entry(table, start) + length));
    if (random_.one_in(2) && to + length <= bytes.size()) {
      std::copy(piece.begin(), piece.end(), bytes.begin() + at(to));
    } else {
      bytes.insert(bytes.begin() + at(std::min<uint64_t>(to, bytes.size())), piece.begin(), piece.end());
      if (!random_.one_in(8)) change_count(bytes, table, n);
    }
  }

  void resize(Bytes& bytes) {
    if (random_.one_in(2)) bytes.resize(random_.below(bytes.size()));
    else bytes.resize(bytes.size() + random_.below(256), random_.one_in(2) ? 0 : static_cast<uint8_t>(random_.number()));
  }

  Random random_;
  const std::vector<Bytes> corpus_;
  std::vector<Bytes> pool_;
};

/// A member sends and receives all of its operands, each once, and as many bytes as they hold.
template <class Demand> void verify_exchange(const comm::Collective& collective, const Instruction& instruction, const Demand& demand) {
  int used = 0;
  demand(collective.member >= 0 && static_cast<size_t>(collective.member) < collective.ranks.size(), "an exchange is that of no member");
  for (const titan_comm_tensor& tensor : collective.tensors) {
    demand(tensor.from < collective.ranks.size() && tensor.to < collective.ranks.size() && tensor.from != tensor.to, "a tensor goes from or to nobody");
    demand(!(tensor.in && tensor.out), "a member sends to itself");
    for (const void* data : {tensor.in, static_cast<const void*>(tensor.out)}) {
      if (!data) continue;
      used++;
      const auto same = [&](const Tensor& operand) {
        uint64_t bytes = size_of(operand.dtype);
        for (int d = 0; d < operand.rank; d++) bytes *= static_cast<uint64_t>(operand.dims[d]);
        return operand.data == data && bytes == tensor.chunk;
      };
      demand(std::any_of(instruction.call.operands, instruction.call.operands + instruction.call.num_operands, same), "a tensor is none of the operands");
    }
  }
  demand(used == instruction.call.num_operands, "an operand is neither sent nor received");
}

/// The pieces of a collective's tensors are what the operands hold.
template <class Demand> void verify_collective(const Program& program, const Instruction& instruction, const Demand& demand) {
  const comm::Collective collective = comm::read_collective(static_cast<int>(instruction.index) - cpu::choose_level().backend.num_kernels, instruction.call);
  demand(!collective.ranks.empty(), "a collective has no ranks");
  if (collective.call.kind == titan_comm_exchange) return verify_exchange(collective, instruction, demand);
  demand(collective.tensors.size() * 2 == static_cast<size_t>(instruction.call.num_operands), "a collective has other tensors than operands");
  const auto elements = [](const Tensor& tensor) {
    uint64_t n = 1;
    for (int d = 0; d < tensor.rank; d++) n *= static_cast<uint64_t>(tensor.dims[d]);
    return n;
  };
  for (size_t i = 0; i < collective.tensors.size(); i++) {
    const int in = static_cast<int>(i), out = static_cast<int>(collective.tensors.size() + i);
    const uint64_t part = collective.tensors[i].outer * collective.tensors[i].chunk, whole = part * collective.ranks.size();
    const uint32_t kind = collective.call.kind;
    const bool wholes = kind == titan_comm_all_to_all;
    demand(elements(instruction.call[in]) == (wholes || kind == titan_comm_reduce_scatter ? whole : part), "a collective's input is not what its ranks take");
    demand(elements(instruction.call[out]) == (wholes || kind == titan_comm_all_gather ? whole : part), "a collective's output is not what its ranks give");
    const auto fits = [&](uint64_t run) { return !part || (run && part % run == 0 && run % collective.tensors[i].chunk == 0); };
    demand(!wholes || (fits(collective.tensors[i].in_run) && fits(collective.tensors[i].out_run)), "pieces are not made of whole runs");
    for (const int operand : {in, out}) {
      const Place& place = program.places[static_cast<size_t>(instruction.call.operands + operand - program.operands.data())];
      demand(place.space == Space::arena || place.space == Space::slot, "a collective's tensor lies where other ranks do not see it");
    }
  }
}

/// What is waited for is an instruction of another stream; in the same action it comes before, so that streams cannot lock each other up.
template <class Demand> void verify_wait(const Program& program, uint64_t instruction, const Wait& wait, const Demand& demand) {
  demand(wait.section < program.sections.size() && wait.stream < NUM_STREAMS && wait.stream != program.instructions[instruction].stream, "it waits for no section, or for its own stream");
  const Section& section = program.sections[wait.section];
  demand(wait.position >= 1 && wait.position <= section.num_on[wait.stream], "it waits for more than a section does");
  if (!wait.same_action) return;
  demand(instruction >= section.first_instruction && instruction < section.first_instruction + section.num_instructions, "it waits in its action for another section");
  uint64_t before = 0;
  for (uint64_t n = section.first_instruction; n < instruction; n++) before += program.instructions[n].stream == wait.stream;
  demand(wait.position <= before, "it waits for what does not come before");
}

/// Holds an accepted program to what running it relies on, by arithmetic of its own.
void verify(Program& program) {
  const auto demand = [](bool holds, const char* what) {
    if (!holds) finding(std::string("accepted, but ") + what);
  };
  static char* const arena = static_cast<char*>(mmap(nullptr, size_t{1} << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  demand(arena != MAP_FAILED, "there is no address range to bind it to");
  const bool bound = program.arena_bytes <= uint64_t{1} << 40;
  if (bound) program.bind(arena);
  demand(program.slots >= 1 && program.slot_bytes <= program.arena_bytes / program.slots, "slots reach beyond the arena");
  const uint64_t slots_begin = program.arena_bytes - program.slots * program.slot_bytes;
  demand(!program.slot_bytes || (program.slot_bytes % 64 == 0 && slots_begin % 64 == 0), "slots are not aligned");
  demand(program.threads >= 1 && program.threads <= THREADS, "it wants other threads");
  demand(program.places.size() == program.operands.size(), "places do not match operands");
  const uint64_t space_bytes[] = {slots_begin, program.input_bytes, program.output_bytes, program.slot_bytes, program.slot_bytes};
  for (const Instruction& instruction : program.instructions) {
    const Call& call = instruction.call;
    const auto number = static_cast<uint64_t>(&instruction - program.instructions.data());
    demand(instruction.stream == (instruction.kernel->run ? 0 : 1), "a kernel is on the comm stream, or a collective on that of kernels");
    demand(instruction.first_wait <= program.waits.size() && instruction.num_waits <= program.waits.size() - instruction.first_wait, "waits are outside of their table");
    for (uint64_t w = instruction.first_wait; w < instruction.first_wait + instruction.num_waits; w++) verify_wait(program, number, program.waits[w], demand);
    if (instruction.stream) verify_collective(program, instruction, demand);
    const Attribute* attributes = program.attributes.data();
    demand(call.operands >= program.operands.data() && call.operands + call.num_operands <= program.operands.data() + program.operands.size(), "operands are outside of their table");
    demand(call.num_attributes == 0 || (call.attributes >= attributes && call.attributes + call.num_attributes <= attributes + program.attributes.size()),
           "attributes are outside of their table");
    demand(instruction.first_output >= 0 && (instruction.num_outputs >= 1 || instruction.stream) && instruction.num_outputs >= 0 && instruction.first_output + instruction.num_outputs <= call.num_operands, "outputs are no operands");
    for (int i = 0; i < call.num_operands; i++) {
      const Place& place = program.places[static_cast<size_t>(call.operands + i - program.operands.data())];
      const Tensor& tensor = call[i];
      demand(place.absent == (tensor.data == nullptr), "an absent operand has an address");
      if (place.absent) continue;
      demand(tensor.rank >= 0 && tensor.rank <= MAX_RANK, "a tensor has a wild rank");
      __int128 last = 0, elements = 1;
      for (int d = 0; d < tensor.rank; d++) {
        demand(tensor.dims[d] >= 0 && tensor.strides[d] >= 0, "a dim or stride is negative");
        last += static_cast<__int128>(tensor.dims[d] - 1) * tensor.strides[d];
        elements *= tensor.dims[d];
      }
      const __int128 end = place.offset + (elements == 0 ? 0 : (last + 1) * static_cast<__int128>(size_of(tensor.dtype)));
      const auto space = static_cast<size_t>(place.space);
      demand(space < 4 && end <= static_cast<__int128>(space_bytes[space]), "a tensor reaches beyond its buffer");
      demand(place.offset % size_of(tensor.dtype) == 0, "a tensor is not aligned");
      demand(place.space != Space::input || i < instruction.first_output, "the input buffer is written");
      demand(!bound || place.space != Space::arena || tensor.data == arena + place.offset, "a tensor of the arena is not bound to it");
      demand(!bound || (place.space != Space::slot && place.space != Space::source) || tensor.data == arena + slots_begin + place.offset, "a tensor of a slot is not bound to slot 0");
    }
    if (bound && instruction.kernel->prepare) {
      std::vector<Bytes64> state((instruction.kernel->state_bytes(call) + 63) / 64);
      instruction.kernel->prepare(call, state.data());
    }
  }
  for (const Section& section : program.sections) {
    demand(section.first_instruction <= program.instructions.size() && section.num_instructions <= program.instructions.size() - section.first_instruction,
           "a section has instructions outside of their table");
    demand(section.input_bytes <= program.input_bytes && section.output_bytes <= program.output_bytes, "a section reaches beyond the host's buffers");
    for (const auto& moving : section.moving)
      for (const uint32_t operand : moving) demand(operand < program.operands.size() && program.places[operand].space != Space::arena, "an operand moves that has one place");
  }
}

/// Why the loader refuses these bytes; empty where it accepts them.
std::string load(const Bytes& bytes) {
  static const Backend& backend = cpu::choose_level().backend;
  const Bytes exact(bytes);  // so that the sanitizer sees a read behind the end
  loading = &bytes;
  std::string refusal;
  try {
    Program program = load_program(backend, THREADS, exact.data(), exact.size());
    verify(program);
  } catch (const Failure& failure) {
    if (failure.status() != TITAN_STATUS_INVALID_PROGRAM || !*failure.what()) finding("refused with another status than INVALID_PROGRAM, or without a message");
    refusal = failure.what();
  } catch (const std::exception& exception) {
    finding(std::string("threw another exception than a Failure: ") + exception.what());
  }
  loading = nullptr;
  return refusal;
}

Bytes read_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) std::fprintf(stderr, "fuzz_program: cannot read %s\n", path), std::exit(2);
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

[[noreturn]] void usage() {
  std::fprintf(stderr, "expected: fuzz_program [--seconds 60] [--seed 1] [--save FOLDER] PROGRAM..., or fuzz_program --replay FILE\n");
  std::exit(2);
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = 60;
  uint64_t seed = 1;
  std::string folder = ".", replay;
  std::vector<Bytes> corpus;
  for (int i = 1; i < argc; i++) {
    const std::string argument = argv[i];
    if (argument.rfind("--", 0) != 0) {
      corpus.push_back(read_file(argv[i]));
      continue;
    }
    if (i + 1 == argc) usage();
    const char* value = argv[++i];
    if (argument == "--seconds") seconds = std::atof(value);
    else if (argument == "--seed") seed = std::strtoull(value, nullptr, 10);
    else if (argument == "--save") folder = value;
    else if (argument == "--replay") replay = value;
    else usage();
  }
  signal(SIGALRM, on_signal);
  signal(SIGABRT, on_signal);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_set_death_callback(save_loading);
#endif
  if (!replay.empty()) {
    std::snprintf(save_path, sizeof save_path, "%s.again", replay.c_str());
    const std::string refusal = load(read_file(replay.c_str()));
    std::printf("fuzz_program: %s is %s%s\n", replay.c_str(), refusal.empty() ? "accepted" : "refused: ", refusal.c_str());
    return 0;
  }
  if (corpus.empty()) usage();
  for (const Bytes& program : corpus)
    if (const std::string refusal = load(program); !refusal.empty()) finding("a program to start from is refused: " + refusal);

  Mutator mutator(seed, std::move(corpus));
  uint64_t executions = 0, accepted = 0;
  std::unordered_set<std::string> refusals;  // different texts, numbers left out: how far into the loader the mutants get
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  for (; elapsed() < seconds; executions++) {
    const Bytes mutant = mutator.next();
    std::snprintf(save_path, sizeof save_path, "%s/mutant-%llu-%llu", folder.c_str(), static_cast<unsigned long long>(seed), static_cast<unsigned long long>(executions));
    alarm(LONGEST_LOAD_S);
    std::string refusal = load(mutant);
    alarm(0);
    if (refusal.empty()) {
      accepted++;
      mutator.accepted(mutant);
    } else {
      refusal.erase(std::remove_if(refusal.begin(), refusal.end(), [](char c) { return c >= '0' && c <= '9'; }), refusal.end());
      if (refusals.size() < 10000) refusals.insert(refusal);
    }
  }
  std::printf("fuzz_program: %llu executions in %.0f s from seed %llu, %llu accepted, %zu different refusals, no finding\n", static_cast<unsigned long long>(executions), elapsed(),
              static_cast<unsigned long long>(seed), static_cast<unsigned long long>(accepted), refusals.size());
}
