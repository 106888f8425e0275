// Has ranks run what was compiled for them, each on a played GPU, once for each call that is to fail. A trial has processes of its own, forked from this one, which
// has read the programs, and neither a thread nor a GPU: so it takes no start of a program, and 100 ms where an error ends it early.
//   gpu_trials FOLDER RANKS RUNS AT_ONCE TRIAL...   a TRIAL is RANK:NUMBER:FUNCTION, a call's number among those of the function; none fails where it is -1
// FOLDER has for each rank r `program.r`, and for each of its runs i `actions.r.i` and `input.r.i`, as the C interface takes them. Ranks meet over Gloo.
// Prints a line of JSON for each trial when its last rank has ended: how each has, and what it said.
#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <list>
#include <string>
#include <thread>
#include <vector>

#include "../clock.h"
#include "../titan.h"

namespace {

constexpr uint64_t HANGS_NS = uint64_t{120} * 1'000'000'000, TIMEOUT_MS = 300'000;  // which none is to wait for
constexpr size_t MOST_TEXT = 1 << 15;                                               // that a rank says

struct Run {
  std::vector<titan_action> actions;
  std::vector<uint8_t> input;
};
struct Rank {
  std::vector<uint8_t> program;
  std::vector<Run> runs;
};

struct Trial {
  std::string name, folder;
  char* said;  // by all ranks, each in its place
  uint64_t begun_ns;
  std::vector<pid_t> ranks;
  std::vector<std::string> ended;  // empty while they run
};

template <class T> std::vector<T> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) std::fprintf(stderr, "cannot read %s\n", path.c_str()), std::exit(2);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  std::vector<T> list(bytes.size() / sizeof(T));
  std::memcpy(list.data(), bytes.data(), list.size() * sizeof(T));
  return list;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    char code[16];
    std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
    out += c == '"' || c == '\\' || (c >= 0 && c < ' ') ? code : std::string(1, c);
  }
  return out + "\"";
}

std::string hex(const std::vector<uint8_t>& bytes) {
  std::string out;
  for (const uint8_t byte : bytes) out += "0123456789abcdef"[byte / 16], out += "0123456789abcdef"[byte % 16];
  return out;
}

/// A function of the played GPU.
template <class Function> Function* played(const char* name) {
  void* const module = dlopen(std::getenv("TITAN_CUDA"), RTLD_NOW);
  void* const function = module ? dlsym(module, name) : nullptr;
  if (!function) std::fprintf(stderr, "%s\n", dlerror()), _exit(2);
  return reinterpret_cast<Function*>(function);
}

/// How many calls each function has had.
std::string calls() {
  std::string out = "{";
  int64_t count = 0;
  for (uint64_t i = 0; const char* name = played<const char*(uint64_t, int64_t*)>("titan_played_gpu_calls_of")(i, &count); i++)
    out += (i ? "," : "") + quoted(name) + ":" + std::to_string(count);
  return out + "}";
}

/// All that a rank does, with a call that fails once it has met the others. Returns what it says, without the braces.
std::string run(const Rank& rank, uint32_t number, uint32_t ranks, int64_t failing, const char* function) {
  titan_error error = {}, leaving = {}, untold;
  titan_memory memory = {};
  uint64_t device = 0, comm = 0, program = 0;
  const titan_device_options options = {1, ranks, 0};
  const titan_comm_options of_comm = {TIMEOUT_MS, TIMEOUT_MS, 16, 0, 0};
  int32_t status = titan_device_open(TITAN_DEVICE_CUDA, number, &options, &device, &error);
  if (!status) status = titan_comm_open(device, "gloo", &of_comm, &comm, &error);
  played<void(int64_t, const char*)>("titan_played_gpu_fails")(failing, function);
  if (!status) status = titan_program_create(device, rank.program.data(), rank.program.size(), &program, &error);
  if (!status) status = titan_program_memory(program, &memory, &error);
  uint64_t output_bytes = 0;
  for (const Run& run : rank.runs)
    for (const titan_action& action : run.actions) output_bytes = std::max(output_bytes, action.output_base + memory.output_bytes);
  std::vector<uint8_t> output(output_bytes);
  std::string outputs;
  for (const Run& run : rank.runs) {
    if (!status) status = titan_program_run(program, run.actions.data(), run.actions.size(), run.input.data(), run.input.size(), output.data(), output.size(), &error);
    outputs += (outputs.empty() ? "\"" : ",\"") + hex(output) + "\"";
  }
  const std::string before = calls();
  if (program) titan_program_destroy(program, &untold);
  if (!status) titan_comm_close(comm, &leaving);  // who is done waits for the others; a world that is broken cannot be left
  if (device) titan_device_close(device, &untold);
  return "\"left\":" + std::to_string(played<int64_t()>("titan_played_gpu_left")()) + ",\"calls\":" + calls() + ",\"before\":" + before +
         ",\"failed\":" + quoted(played<const char*()>("titan_played_gpu_failed")()) +
         (status ? ",\"message\":" + quoted(error.message) : ",\"outputs\":[" + outputs + "],\"leaving\":" + quoted(leaving.message));
}

Trial begin(const std::vector<Rank>& ranks, const std::string& folder, const std::string& name) {
  uint32_t failing = 0;
  int64_t number = 0;
  int function = 0;
  if (std::sscanf(name.c_str(), "%" SCNu32 ":%" SCNd64 ":%n", &failing, &number, &function) != 2 || !function)
    std::fprintf(stderr, "expected: RANK:NUMBER:FUNCTION, not %s\n", name.c_str()), std::exit(2);
  void* const said = mmap(nullptr, ranks.size() * MOST_TEXT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  Trial trial = {name, folder + "/XXXXXX", static_cast<char*>(said), titan::now_ns(), {}, std::vector<std::string>(ranks.size())};
  if (!mkdtemp(trial.folder.data())) std::perror("a folder"), std::exit(2);
  for (uint32_t r = 0; r < ranks.size(); r++) {
    if (const pid_t child = fork()) {
      trial.ranks.push_back(child);
      continue;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const std::string rank = std::to_string(r), size = std::to_string(ranks.size());
    const std::pair<const char*, std::string> variables[] = {{"RANK", rank}, {"LOCAL_RANK", rank}, {"WORLD_SIZE", size}, {"LOCAL_WORLD_SIZE", size}, {"MASTER_ADDR", "127.0.0.1"},
                                                             {"MASTER_PORT", "0"}, {"TITAN_ADDRESS", ""}, {"TITAN_TOKEN", "a token of this test"}, {"TITAN_LAUNCHED", trial.folder}};
    for (const auto& [variable, value] : variables) setenv(variable, value.c_str(), 1);
    const std::string text = run(ranks[r], r, static_cast<uint32_t>(ranks.size()), r == failing ? number : -1, name.c_str() + function);
    std::strncpy(trial.said + r * MOST_TEXT, text.c_str(), MOST_TEXT - 1);
    _exit(text.size() < MOST_TEXT ? 0 : 3);
  }
  return trial;
}

/// Have all ranks ended? Those that hang are killed.
bool is_over(Trial& trial) {
  bool over = true;
  for (size_t r = 0; r < trial.ranks.size(); r++) {
    if (!trial.ended[r].empty()) continue;
    const bool hangs = titan::now_ns() - trial.begun_ns > HANGS_NS;
    if (hangs) kill(trial.ranks[r], SIGKILL);
    int status = 0;
    if (waitpid(trial.ranks[r], &status, hangs ? 0 : WNOHANG) != trial.ranks[r]) {
      over = false;
      continue;
    }
    trial.ended[r] = hangs ? "it hangs" : !status ? "well" : WIFSIGNALED(status) ? "signal " + std::to_string(WTERMSIG(status)) : "exit code " + std::to_string(WEXITSTATUS(status));
  }
  return over;
}

void report(const Trial& trial) {
  std::string ranks;
  for (size_t r = 0; r < trial.ranks.size(); r++) {
    const std::string said = trial.said + r * MOST_TEXT;
    ranks += (r ? ",{\"ended\":" : "{\"ended\":") + quoted(trial.ended[r]) + (said.empty() ? "" : ",") + said + "}";
  }
  std::printf("{\"trial\":%s,\"ms\":%" PRIu64 ",\"ranks\":[%s]}\n", quoted(trial.name).c_str(), (titan::now_ns() - trial.begun_ns) / 1'000'000, ranks.c_str());
  std::fflush(stdout);
  munmap(trial.said, trial.ranks.size() * MOST_TEXT);
  std::filesystem::remove_all(trial.folder);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6 || !std::getenv("TITAN_CUDA")) return std::fprintf(stderr, "expected: TITAN_CUDA=MODULE gpu_trials FOLDER RANKS RUNS AT_ONCE TRIAL...\n"), 2;
  const std::string folder = argv[1];
  const auto at_once = static_cast<size_t>(std::atoi(argv[4]));
  std::vector<Rank> ranks(static_cast<size_t>(std::atoi(argv[2])));
  for (size_t r = 0; r < ranks.size(); r++) {
    ranks[r].program = read_file<uint8_t>(folder + "/program." + std::to_string(r));
    for (int i = 0; i < std::atoi(argv[3]); i++) {
      const std::string run = std::to_string(r) + "." + std::to_string(i);
      ranks[r].runs.push_back({read_file<titan_action>(folder + "/actions." + run), read_file<uint8_t>(folder + "/input." + run)});
    }
  }
  std::list<Trial> trials;
  for (int next = 5; next < argc || !trials.empty(); std::this_thread::sleep_for(std::chrono::milliseconds(1))) {
    while (next < argc && trials.size() < at_once) trials.push_back(begin(ranks, folder, argv[next++]));
    trials.remove_if([](Trial& trial) { return is_over(trial) && (report(trial), true); });
  }
  return 0;
}
