// nvrtc_sources FOLDER ARCHITECTURE...: compiles each source of the folder, where TITAN_CUDA_SOURCES had them written, by NVRTC for one of the
// architectures in turn, as the engine does. No GPU is needed. Fails where NVRTC has something to say, or a kernel spills registers.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <regex>
#include <thread>
#include <vector>

#include "../cuda/nvrtc.h"
#include "../failure.h"

namespace {

struct Job {
  std::filesystem::path path;
  std::string architecture;
};

int number_behind(const std::string& log, const char* words) {
  std::smatch found;
  return std::regex_search(log, found, std::regex(words)) ? std::stoi(found[1]) : -1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return std::printf("expected: a folder of sources, and architectures such as sm_90\n"), 2;
  std::vector<Job> jobs;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1]))
    if (entry.path().extension() == ".cu") jobs.push_back({entry.path(), ""});
  std::sort(jobs.begin(), jobs.end(), [](const Job& a, const Job& b) { return a.path < b.path; });
  for (size_t i = 0; i < jobs.size(); i++) jobs[i].architecture = argv[2 + i % static_cast<size_t>(argc - 2)];
  std::atomic<size_t> next{0};
  std::mutex mutex;
  int failures = 0, most_registers = 0;
  const auto work = [&] {
    for (size_t n; (n = next++) < jobs.size();) {
      std::ifstream file(jobs[n].path);
      const std::string source{std::istreambuf_iterator<char>(file), {}};
      std::string log, wrong;
      try {
        titan::cuda::compile_source(jobs[n].path.stem(), source, jobs[n].architecture, &log);
        if (log.find("warning") != std::string::npos) wrong = "a warning";
        else if (number_behind(log, "(\\d+) bytes spill stores") != 0 || number_behind(log, "(\\d+) bytes stack frame") != 0) wrong = "registers spill";
      } catch (const titan::Failure& failure) {
        wrong = failure.what();
      }
      const std::lock_guard lock(mutex);
      most_registers = std::max(most_registers, number_behind(log, "Used (\\d+) registers"));
      if (wrong.empty()) continue;
      failures++;
      std::printf("%s for %s: %s\n%s\n", jobs[n].path.c_str(), jobs[n].architecture.c_str(), wrong.c_str(), log.c_str());
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < std::max(1u, std::thread::hardware_concurrency()); i++) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  std::printf("%zu compilations of kernels from source, %d failed; at most %d registers\n", jobs.size(), failures, most_registers);
  return failures || jobs.empty();
}
