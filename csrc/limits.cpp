#include "limits.h"

#include <sys/stat.h>
#include <unistd.h>
#ifdef __APPLE__
#include <mach/mach.h>
#endif

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>

namespace titan {
namespace {

std::vector<std::string> lines_of(const std::string& path) {
  std::vector<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> words_of(const std::string& line, char separator) {
  std::vector<std::string> words;
  std::istringstream stream(line);
  for (std::string word; std::getline(stream, word, separator);) words.push_back(word);
  return words;
}

bool has(const std::vector<std::string>& words, const std::string& word) { return std::find(words.begin(), words.end(), word) != words.end(); }

/// The first number of a file; none where there is no file, or no number ("max").
std::optional<uint64_t> number(const std::string& path) {
  uint64_t value = 0;
  std::ifstream file(path);
  return file >> value ? std::optional(value) : std::nullopt;
}

/// The number behind a key, "inactive_file 4096" or "MemTotal:  64 kB".
uint64_t number_of(const std::vector<std::string>& lines, const std::string& key) {
  for (const std::string& line : lines)
    if (line.size() > key.size() && !line.compare(0, key.size(), key) && (line[key.size()] == ' ' || line[key.size()] == '\t')) return std::strtoull(line.c_str() + key.size(), nullptr, 10);
  return 0;
}

/// Paths in /proc/self/mountinfo have octal numbers in place of blanks.
std::string unescaped(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); i++) {
    if (text[i] == '\\' && i + 3 < text.size()) out += static_cast<char>(std::strtol(text.substr(i + 1, 3).c_str(), nullptr, 8)), i += 3;
    else out += text[i];
  }
  return out;
}

/// What of a group's path lies below the group `top`; nothing for top itself, and for a group that cannot be seen from there ("/../other").
std::string below(const std::string& path, const std::string& top) {
  const std::string base = top == "/" ? "" : top;
  if (path.compare(0, base.size(), base) || path.size() == base.size() || path[base.size()] != '/' || path.find("/..") != std::string::npos) return "";
  return path == "/" ? "" : path.substr(base.size());
}

/// The folders of this process's control groups in a hierarchy, its own first: that of a controller of version 1, or with none that of version 2.
std::vector<std::string> groups_of(const std::string& root, const std::string& controller) {
  std::optional<std::string> own;
  for (const std::string& line : lines_of(root + "/proc/self/cgroup")) {  // 4:cpu,cpuacct:/path, or 0::/path
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const auto controllers = words_of(line.substr(first + 1, second - first - 1), ',');
    if (controller.empty() ? controllers.empty() : has(controllers, controller)) own = line.substr(second + 1);
  }
  if (!own) return {};
  std::string top, rest;
  size_t shortest = std::string::npos;
  for (const std::string& line : lines_of(root + "/proc/self/mountinfo")) {  // ID PARENT DEVICE ROOT PLACE OPTIONS ... - TYPE SOURCE OPTIONS
    const auto words = words_of(line, ' ');
    const auto dash = std::find(words.begin(), words.end(), "-");
    if (words.size() < 6 || words.end() - dash < 4) continue;
    if (controller.empty() ? dash[1] != "cgroup2" : dash[1] != "cgroup" || !has(words_of(dash[3], ','), controller)) continue;
    const std::string mounted = unescaped(words[3]), place = unescaped(words[4]);
    // Of several places, the one that shows most of the groups above. A process whose own group cannot be seen there is below the topmost.
    const std::string found = below(*own, mounted);
    if (mounted.size() < shortest && !access((root + place + found).c_str(), F_OK)) shortest = mounted.size(), top = place, rest = found;
  }
  if (shortest == std::string::npos) return {};
  std::vector<std::string> folders;
  for (; !rest.empty(); rest.erase(rest.rfind('/'))) folders.push_back(top + rest);
  folders.push_back(top);
  return folders;
}

uint64_t number_of_group(const std::string& folder) {
  struct stat status = {};
  if (stat(folder.c_str(), &status)) return 1;
  return (static_cast<uint64_t>(status.st_dev) * 1099511628211u ^ static_cast<uint64_t>(status.st_ino)) | 1;
}

uint64_t less(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

MemoryLimit machine_memory(const std::string& root) {
  const auto lines = lines_of(root + "/proc/meminfo");
  const uint64_t total = number_of(lines, "MemTotal:") * 1024, available = number_of(lines, "MemAvailable:") * 1024;
  if (total && available) return {0, "", total, available};
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE)), bytes = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * page;
#ifdef __APPLE__
  vm_statistics64_data_t pages;
  mach_msg_type_number_t words = HOST_VM_INFO64_COUNT;
  if (host_statistics64(mach_host_self(), HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&pages), &words) == KERN_SUCCESS)
    return {0, "", bytes, (static_cast<uint64_t>(pages.free_count) + pages.inactive_count) * page};
#endif
  return {0, "", bytes, bytes};
}

}  // namespace

std::vector<MemoryLimit> memory_limits(const std::string& root) {
  std::vector<MemoryLimit> limits = {machine_memory(root)};
  const uint64_t most = limits[0].bytes;
  const auto add = [&](const std::string& folder, const std::string& file, const std::string& used, std::initializer_list<const char*> caches) {
    const auto limit = number(root + folder + "/" + file);
    if (!limit || *limit >= most) return;
    // The system takes files' pages back before it ends a process; what tmpfs holds is no such page.
    const auto lines = lines_of(root + folder + "/memory.stat");
    uint64_t give_way = 0;
    for (const char* cache : caches) give_way += number_of(lines, cache);
    const uint64_t in_use = less(number(root + folder + "/" + used).value_or(0), give_way);
    limits.push_back({number_of_group(root + folder), folder + "/" + file, *limit, less(*limit, in_use)});
  };
  for (const std::string& folder : groups_of(root, ""))
    for (const char* file : {"memory.max", "memory.high"}) add(folder, file, "memory.current", {"active_file", "inactive_file", "slab_reclaimable"});
  for (const std::string& folder : groups_of(root, "memory")) add(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", {"total_active_file", "total_inactive_file"});
  return limits;
}

MemoryLimit memory_of(const MemorySharing& sharing, const std::string& root) {
  MemoryLimit least = {0, "", 0, UINT64_MAX};
  const uint64_t own = own_memory(root);
  for (MemoryLimit& limit : memory_limits(root)) {
    const auto it = sharing.of_group.find(limit.group);
    const auto processes = static_cast<uint64_t>(std::max(1, it == sharing.of_group.end() ? sharing.processes : it->second));
    limit.available = std::min(limit.bytes, limit.available / processes + own);
    if (limit.available < least.available) least = std::move(limit);
  }
  return least;
}

uint64_t own_memory(const std::string& root) {
#ifdef __APPLE__
  task_vm_info_data_t info;
  mach_msg_type_number_t words = TASK_VM_INFO_COUNT;
  if (task_info(mach_task_self(), TASK_VM_INFO, reinterpret_cast<task_info_t>(&info), &words) == KERN_SUCCESS) return info.phys_footprint;
#endif
  return number_of(lines_of(root + "/proc/self/status"), "RssAnon:") * 1024;
}

double cpu_quota(const std::string& root) {
  double least = std::numeric_limits<double>::infinity();
  const auto add = [&](const std::optional<uint64_t>& quota, const std::optional<uint64_t>& period) {
    if (quota && period && *quota && *period) least = std::min(least, static_cast<double>(*quota) / static_cast<double>(*period));
  };
  for (const std::string& folder : groups_of(root, "")) {
    uint64_t quota = 0, period = 0;  // "150000 100000", or "max 100000"
    std::ifstream file(root + folder + "/cpu.max");
    if (file >> quota >> period) add(quota, period);
  }
  for (const std::string& folder : groups_of(root, "cpu")) {
    std::ifstream file(root + folder + "/cpu.cfs_quota_us");
    int64_t quota = 0;  // -1: none
    if (file >> quota && quota > 0) add(static_cast<uint64_t>(quota), number(root + folder + "/cpu.cfs_period_us"));
  }
  return least;
}

}  // namespace titan
