// Parts of files, where they go and their hashes, at lengths around those of blocks and pieces.
#include "../file.h"

#include <vector>

#include "../failure.h"
#include "../sha256.h"
#include "folder.h"
#include "test.h"

using namespace titan;
using namespace titan::test;

namespace {

std::string hex(const uint8_t* hash) {
  std::string out;
  for (int i = 0; i < 32; i++) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", hash[i]);
    out += digits;
  }
  return out;
}

std::string hash_of(const std::string& message, bool by_instructions = Sha256::has_instructions()) {
  Sha256 sha(1, by_instructions);
  const size_t whole = message.size() / Sha256::BLOCK * Sha256::BLOCK;
  const auto* data = reinterpret_cast<const uint8_t*>(message.data());
  const uint8_t* const lanes[] = {data};
  sha.add(lanes, whole);
  return hex(sha.end(0, data + whole, message.size() - whole).data());
}

std::string written(const Folder& folder, const std::string& content) {
  std::ofstream(folder.path + "/file", std::ios::binary) << content;
  return folder.path + "/file";
}

void messages_have_the_hashes_of_the_standard() {
  // FIPS 180-4's examples, and lengths at which the padding takes another block.
  const std::pair<std::string, const char*> examples[] = {
      {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
      {std::string(55, 'a'), "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"},
      {std::string(56, 'a'), "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a"},
      {std::string(1'000'000, 'a'), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"}};
  for (const auto& [message, hash] : examples) {
    EXPECT(hash_of(message) == hash);
    EXPECT(hash_of(message, false) == hash);  // on processors without instructions for it
  }
}

std::string content_of(uint64_t n) {
  std::string content(n, 0);
  for (size_t i = 0; i < n; i++) content[i] = static_cast<char>(i * 2654435761u >> 13);
  return content;
}

/// Memory that is filled, of this process or reached by copies alone.
struct Filled {
  explicit Filled(uint64_t n, bool own) : bytes(n, '.'), sink{own ? data() : nullptr, [this](uint64_t to, const uint8_t* from, uint64_t n) { copied += n, std::memcpy(data() + to, from, n); }} {}
  Filled(const Filled&) = delete;
  uint8_t* data() { return reinterpret_cast<uint8_t*>(bytes.data()); }
  std::string bytes;
  uint64_t copied = 0;
  const Sink sink;
};

void parts_have_their_own_hashes_at_every_length() {
  const std::string content = content_of(700 * 1024 + 37);
  const Folder folder({});
  const std::string path = written(folder, content);
  const File first(path.c_str()), second(path.c_str());
  for (const uint64_t n : {0, 1, 63, 64, 65, 128 * 1024, 128 * 1024 + 1, 300 * 1024 + 63}) {
    constexpr int MOST = Sha256::MOST_LANES;
    Filled filled(MOST * n + 1, true);
    std::vector<uint8_t> hashes(32 * MOST);
    std::vector<titan_stretch> whole;
    std::vector<Part> parts;
    for (uint64_t i = 0; i < MOST; i++) whole.push_back({0, i * n, n});
    for (uint64_t i = 0; i < MOST; i++) parts.push_back({i % 2 ? &second : &first, 17 + i * 100 * 1024, &whole[i], 1, 0});
    for (int num_parts = MOST; num_parts >= 1; num_parts--) {
      read_parts(parts.data(), num_parts, n, filled.sink, hashes.data());
      for (int i = 0; i < num_parts; i++) {
        const std::string expected = content.substr(parts[i].offset, n);
        EXPECT(parts[i].read == n && filled.bytes.substr(i * n, n) == expected);
        EXPECT(hex(&hashes[32 * i]) == hash_of(expected));
      }
    }
    EXPECT(filled.copied == 0);
  }
}

void stretches_go_to_their_places_and_nothing_else_does() {
  constexpr uint64_t N = 2 * 1024 * 1024 + 11;
  const std::string content = content_of(N + 3);
  const Folder folder({});
  const File file(written(folder, content).c_str());
  // Short ones, one over many pieces, gaps between, none at the end.
  const std::vector<titan_stretch> stretches = {{5, 900, 7}, {12, 0, 100}, {300'000, 1000, 1'500'000}, {1'800'001, 1'600'000, 64}};
  for (const bool own : {true, false}) {
    Filled filled(1'700'000, own);
    uint8_t hash[32];
    Part part{&file, 3, stretches.data(), stretches.size(), 0};
    read_parts(&part, 1, N, filled.sink, hash);
    std::string expected(filled.bytes.size(), '.');
    uint64_t all = 0;
    for (const auto& [from, to, n] : stretches) expected.replace(to, n, content, 3 + from, n), all += n;
    EXPECT(part.read == N && filled.bytes == expected);
    EXPECT(hex(hash) == hash_of(content.substr(3, N)));
    EXPECT(own ? filled.copied < all / 2 : filled.copied == all);  // most of it was read where it belongs
  }
}

void a_part_beyond_the_end_of_its_file_is_told_by_its_length() {
  const Folder folder({});
  const File file(written(folder, std::string(300 * 1024, 'x')).c_str());
  constexpr uint64_t N = 280 * 1024;
  for (const bool own : {true, false}) {
    Filled filled(2 * N, own);
    std::vector<uint8_t> hashes(64);
    const titan_stretch whole[] = {{0, 0, N}, {0, N, N}};
    Part parts[] = {{&file, 100 * 1024, &whole[0], 1, 0}, {&file, 0, &whole[1], 1, 0}};
    read_parts(parts, 2, N, filled.sink, hashes.data());
    EXPECT(parts[0].read == 200 * 1024 && parts[1].read == N);
    EXPECT(filled.bytes == std::string(200 * 1024, 'x') + std::string(80 * 1024, '.') + std::string(N, 'x'));
    EXPECT(hex(&hashes[32]) == hash_of(std::string(N, 'x')));
    parts[0].offset = 400 * 1024;
    read_parts(parts, 1, N, filled.sink, nullptr);
    EXPECT(parts[0].read == 0);
  }
}

void a_file_that_cannot_be_read_is_named() {
  try {
    const File file("/nowhere/at/all");
    EXPECT(false);
  } catch (const Failure& failure) {
    EXPECT(std::string(failure.what()).find("Cannot read /nowhere/at/all: No such file or directory; expected: ") == 0);
  }
}

}  // namespace

int main() {
  messages_have_the_hashes_of_the_standard();
  parts_have_their_own_hashes_at_every_length();
  stretches_go_to_their_places_and_nothing_else_does();
  a_part_beyond_the_end_of_its_file_is_told_by_its_length();
  a_file_that_cannot_be_read_is_named();
  return finish("file");
}
