// The C border: handles become objects, exceptions become a status and a filled titan_error. Nothing else happens here.
#include "titan.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <unordered_map>

#include "comm/world.h"
#include "file.h"
#include "loaded_program.h"
#include "sha256.h"

namespace titan {
namespace {

template <class Body> int32_t guard(titan_error* error, Body body) noexcept {
  try {
    body();
    return TITAN_STATUS_OK;
  } catch (...) {
    const Failure failure = Failure::caught();
    if (error) *error = failure.error;
    return failure.status();
  }
}

void require(bool condition, const char* message) {
  if (!condition) throw Failure(TITAN_STATUS_INVALID_ARGUMENT, message);
}

std::atomic<uint64_t> next_handle{1};

/// What handles stand for. Who works with an object shares it, so removing a handle never pulls it away from a running call.
template <class Object> class Handles {
 public:
  explicit Handles(const char* kind) : kind_(kind) {}
  uint64_t add(std::shared_ptr<Object> object) {
    std::lock_guard lock(mutex_);
    const uint64_t handle = next_handle++;
    objects_.emplace(handle, std::move(object));
    return handle;
  }
  std::shared_ptr<Object> get(uint64_t handle) {
    std::lock_guard lock(mutex_);
    return find(handle)->second;
  }
  std::shared_ptr<Object> remove(uint64_t handle) {
    std::lock_guard lock(mutex_);
    const auto it = find(handle);
    auto object = std::move(it->second);
    objects_.erase(it);
    return object;
  }

 private:
  auto find(uint64_t handle) {
    const auto it = objects_.find(handle);
    if (it == objects_.end()) throw Failure(TITAN_STATUS_INVALID_HANDLE, text("handle ", handle, " is no open ", kind_, "; expected: one that was opened and not closed since"));
    return it;
  }
  const char* const kind_;
  std::mutex mutex_;
  std::unordered_map<uint64_t, std::shared_ptr<Object>> objects_;
};

// Never destroyed: calls may still be under way while the process ends.
Handles<Device>& devices() {
  static auto& handles = *new Handles<Device>("device");
  return handles;
}
Handles<LoadedProgram>& programs() {
  static auto& handles = *new Handles<LoadedProgram>("program");
  return handles;
}
Handles<File>& files() {
  static auto& handles = *new Handles<File>("file");
  return handles;
}
Handles<comm::World>& worlds() {
  static auto& handles = *new Handles<comm::World>("communicator");
  return handles;
}

/// Parts of open files, which stay open while they are read.
struct FileParts {
  FileParts(const uint64_t* handles, const uint64_t* offsets, uint32_t num_parts, uint64_t* num_read) : count(static_cast<int>(num_parts)), num_read(num_read) {
    require(handles && offsets, "files or offsets is null; expected: one of each for each part");
    require(num_parts >= 1 && num_parts <= Sha256::MOST_LANES, "the number of parts is out of range; expected: 1 to 4");
    require(num_read, "num_read is null; expected: where to write how much was read");
    for (uint32_t i = 0; i < num_parts; i++) {
      open[i] = files().get(handles[i]);
      list[i] = {open[i].get(), offsets[i], nullptr, 0, 0};
    }
  }
  /// Tells the caller how much there was of each.
  void tell() const {
    for (int i = 0; i < count; i++) num_read[i] = list[i].read;
  }
  std::shared_ptr<File> open[Sha256::MOST_LANES];
  Part list[Sha256::MOST_LANES];
  const int count;
  uint64_t* const num_read;
};

__attribute__((destructor)) void at_exit() { halt_executors(); }

}  // namespace
}  // namespace titan

using namespace titan;

uint32_t titan_abi_version(void) { return TITAN_ABI_VERSION; }

int32_t titan_version(char* text, uint64_t size) {
  if (!text || !size) return TITAN_STATUS_INVALID_ARGUMENT;
  std::strncpy(text, TITAN_VERSION, size - 1);
  text[size - 1] = 0;
  return TITAN_STATUS_OK;
}

int32_t titan_device_open(uint32_t kind, uint32_t ordinal, const titan_device_options* options, uint64_t* device, titan_error* error) {
  return guard(error, [&] {
    require(device, "device is null; expected: where to write the handle");
    require(options, "options is null; expected: what the device is to take of its machine");
    require(options->threads <= 4096, "more than 4096 threads; expected: 0 (as many as this process should take) to 4096");
    require(options->host_size <= 65536, "more than 65536 processes on a host; expected: 0 or 1 (alone) to 65536");
    require(options->placed <= 1, "placed is neither 0 nor 1; expected: one of these");
    *device = devices().add(open_device(kind, ordinal, *options));
  });
}

int32_t titan_device_close(uint64_t device, titan_error* error) {
  return guard(error, [&] { devices().remove(device); });
}

int32_t titan_device_describe(uint64_t device, titan_device_info* info, titan_error* error) {
  return guard(error, [&] {
    require(info, "info is null; expected: where to write it");
    const auto object = devices().get(device);
    *info = {};
    object->engine->describe(*info);
  });
}

int32_t titan_device_memory(uint64_t device, titan_process_memory* memory, titan_error* error) {
  return guard(error, [&] {
    require(memory, "memory is null; expected: where to write it");
    const auto object = devices().get(device);
    std::unique_lock lock(object->mutex);
    const MemorySharing sharing = object->memory_sharing;
    lock.unlock();
    const MemoryLimit own = object->engine->memory(sharing);
    *memory = {};
    memory->total_bytes = own.bytes;
    memory->available_bytes = own.available;
    memory->own_bytes = own_memory();
    copy_text(memory->file, own.file);
  });
}

int32_t titan_device_measure(uint64_t device, uint32_t measure, uint64_t n, uint32_t threads, double* giga_per_second, titan_error* error) {
  return guard(error, [&] {
    require(giga_per_second, "giga_per_second is null; expected: where to write it");
    require(measure <= TITAN_MEASURE_PRODUCT_BF16, "the measure is unknown; expected: 0 (product), 1 (bandwidth) or 2 (bf16 product)");
    if (measure != TITAN_MEASURE_BANDWIDTH) require(n >= 1 && n <= 8192, "n is out of range; expected: 1 to 8192");
    else require(n >= 1 && n <= uint64_t{1} << 32, "n is out of range; expected: 1 to 2^32");
    const auto object = devices().get(device);
    const int all = object->engine->threads;
    require(threads <= static_cast<uint32_t>(all), "more threads than the device has; expected: 0 (all) or fewer");
    object->executor.run([&] { *giga_per_second = object->engine->measure(static_cast<titan_measure>(measure), static_cast<int64_t>(n), threads ? static_cast<int>(threads) : all); });
  });
}

int32_t titan_program_create(uint64_t device, const uint8_t* bytes, uint64_t num_bytes, uint64_t* program, titan_error* error) {
  return guard(error, [&] {
    require(program, "program is null; expected: where to write the handle");
    require(bytes || !num_bytes, "bytes is null; expected: an encoded program");
    *program = programs().add(LoadedProgram::load(devices().get(device), bytes, num_bytes));
  });
}

int32_t titan_program_run(uint64_t program, const titan_action* actions, uint64_t num_actions, const uint8_t* input, uint64_t input_bytes, uint8_t* output,
                          uint64_t output_bytes, titan_error* error) {
  return guard(error, [&] {
    require(actions || !num_actions, "actions is null; expected: a list");
    programs().get(program)->run(actions, num_actions, {input, input_bytes, output, output_bytes});
  });
}

int32_t titan_program_profile(uint64_t program, titan_profile_record* records, uint64_t capacity, titan_error* error) {
  return guard(error, [&] { programs().get(program)->profile(records, capacity); });
}

int32_t titan_program_destroy(uint64_t program, titan_error* error) {
  return guard(error, [&] { programs().remove(program); });
}

int32_t titan_program_memory(uint64_t program, titan_memory* memory, titan_error* error) {
  return guard(error, [&] {
    require(memory, "memory is null; expected: where to write it");
    *memory = programs().get(program)->memory();
  });
}

int32_t titan_buffer_read(uint64_t program, uint64_t offset, uint8_t* bytes, uint64_t num_bytes, titan_error* error) {
  return guard(error, [&] {
    require(bytes || !num_bytes, "bytes is null; expected: where to copy to");
    programs().get(program)->read(offset, bytes, num_bytes);
  });
}

int32_t titan_buffer_write(uint64_t program, uint64_t offset, const uint8_t* bytes, uint64_t num_bytes, titan_error* error) {
  return guard(error, [&] {
    require(bytes || !num_bytes, "bytes is null; expected: what to copy");
    programs().get(program)->write(offset, bytes, num_bytes);
  });
}

int32_t titan_file_open(const char* path, uint64_t* file, titan_error* error) {
  return guard(error, [&] {
    require(path, "path is null; expected: that of a file");
    require(file, "file is null; expected: where to write the handle");
    *file = files().add(std::make_shared<File>(path));
  });
}

int32_t titan_file_read(const uint64_t* handles, const uint64_t* offsets, uint32_t num_parts, uint8_t* bytes, uint64_t num_bytes, uint8_t* hashes,
                        uint64_t* num_read, titan_error* error) {
  return guard(error, [&] {
    require(bytes || !num_bytes, "bytes is null; expected: where to read to");
    FileParts parts(handles, offsets, num_parts, num_read);
    titan_stretch whole[Sha256::MOST_LANES];
    for (uint32_t i = 0; i < num_parts; i++) {
      whole[i] = {0, i * num_bytes, num_bytes};
      parts.list[i].stretches = &whole[i];
      parts.list[i].num_stretches = 1;
    }
    read_parts(parts.list, parts.count, num_bytes, {bytes, {}}, hashes);
    parts.tell();
  });
}

int32_t titan_program_load(uint64_t program, const uint64_t* handles, const uint64_t* offsets, uint32_t num_parts, uint64_t num_bytes,
                           const titan_stretch* stretches, const uint64_t* num_stretches, uint8_t* hashes, uint64_t* num_read, titan_error* error) {
  return guard(error, [&] {
    require(stretches && num_stretches, "stretches or num_stretches is null; expected: what goes where");
    FileParts parts(handles, offsets, num_parts, num_read);
    for (uint32_t i = 0; i < num_parts; stretches += num_stretches[i++]) {
      parts.list[i].stretches = stretches;
      parts.list[i].num_stretches = num_stretches[i];
    }
    programs().get(program)->load(parts.list, parts.count, num_bytes, hashes);
    parts.tell();
  });
}

int32_t titan_file_close(uint64_t file, titan_error* error) {
  return guard(error, [&] { files().remove(file); });
}

int32_t titan_comm_open(uint64_t device, const char* name, const titan_comm_options* options, uint64_t* comm, titan_error* error) {
  return guard(error, [&] {
    require(comm, "comm is null; expected: where to write the handle");
    require(name, "name is null; expected: the name of a communication module");
    require(options, "options is null; expected: how to join");
    const auto [start, later, num_records, latency_ns, bytes_per_second] = *options;
    constexpr uint64_t MOST = uint64_t{1} << 40;
    require(start && later && start <= MOST && later <= MOST, "a time-out is out of range; expected: 1 to 2^40 ms");
    require(num_records <= 1'000'000, "too many records; expected: at most a million");
    require(latency_ns <= 60'000'000'000, "the simulated latency is out of range; expected: at most a minute");
    require(bytes_per_second == 0 || (bytes_per_second >= 1 && bytes_per_second <= 1e18), "the simulated bandwidth is out of range; expected: 0 (none) or 1 to 1e18 bytes/s");
    const auto object = devices().get(device);
    object->world = comm::World::open(name, *options);
    object->world->share_host(*object);
    *comm = worlds().add(object->world);
  });
}

int32_t titan_comm_describe(uint64_t comm, titan_comm_info* info, titan_error* error) {
  return guard(error, [&] {
    require(info, "info is null; expected: where to write it");
    worlds().get(comm)->describe(*info);
  });
}

int32_t titan_comm_gather(uint64_t comm, const uint8_t* mine, uint64_t num_bytes, uint8_t* all, titan_error* error) {
  return guard(error, [&] {
    require((mine && all) || !num_bytes, "mine or all is null; expected: what to give, and where to write it");
    require(num_bytes <= uint64_t{1} << 30, "more than 2^30 bytes; expected: at most these");
    worlds().get(comm)->gather(mine, all, num_bytes);
  });
}

int32_t titan_comm_record(uint64_t comm, char* text, uint64_t size, titan_error* error) {
  return guard(error, [&] {
    require(text && size, "text is null or has no room; expected: where to write it");
    const std::string record = worlds().get(comm)->record();
    const size_t length = std::min<size_t>(record.size(), size - 1);
    std::memcpy(text, record.data(), length);
    text[length] = 0;
  });
}

int32_t titan_comm_count(uint64_t comm, uint32_t collective, titan_comm_traffic* traffic, titan_error* error) {
  return guard(error, [&] {
    require(traffic, "traffic is null; expected: where to write it");
    require(collective < uint32_t{comm::NUM_COLLECTIVES}, "the collective is unknown; expected: the number of a COLLECTIVE line of kernels.def, from 0 on");
    *traffic = worlds().get(comm)->traffic(collective);
  });
}

int32_t titan_comm_give_up(uint64_t comm, const char* why, titan_error* error) {
  return guard(error, [&] {
    require(why, "why is null; expected: what went wrong");
    const auto world = worlds().get(comm);
    world->give_up(why);
    world->tell();
  });
}

int32_t titan_comm_abort(uint64_t comm, int32_t exit_code, titan_error* error) {
  return guard(error, [&] { worlds().get(comm)->abort(exit_code); });
}

int32_t titan_comm_close(uint64_t comm, titan_error* error) {
  return guard(error, [&] { worlds().remove(comm)->leave(); });
}
