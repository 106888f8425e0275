// A folder of files that stand for those of a system, for as long as a test needs it.
#pragma once
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>
#include <utility>

namespace titan::test {

struct Folder {
  std::string path;
  /// Files by their paths, each with its text.
  Folder(std::initializer_list<std::pair<const char*, const char*>> files) {
    char name[] = "/tmp/libtitan-test-XXXXXX";
    path = mkdtemp(name) ? name : "";
    for (const auto& [file, text] : files) write(file, text);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  void write(const std::string& file, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(path + file).parent_path());
    std::ofstream(path + file) << text << "\n";
  }
};

}  // namespace titan::test
