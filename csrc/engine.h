// What a device does for programs: it keeps their memory and runs their instructions. Whatever is the same for all devices lies above: the format,
// what an action may ask for, whose turn it is, who copies state meanwhile. A device of another kind is another Engine, and one line in device.cpp.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "limits.h"
#include "processors.h"
#include "program.h"

namespace titan {

namespace comm {
class World;
}

/// The caller's buffers. They do not overlap, and stay until the run has returned.
struct Host {
  const uint8_t* input;
  uint64_t input_bytes;
  uint8_t* output;
  uint64_t output_bytes;
};

/// One run of a program, checked.
struct Run {
  const titan_action* actions;
  uint64_t num_actions;
  const Host& host;
  titan_profile_record* records;  // one for each instruction of each action, in their order; or null
  Access& access;                 // is told in which section each stream is, from before its first write to after its last
};

/// A program on a device: its memory, the addresses of its operands, and what its kernels have prepared.
class DeviceProgram {
 public:
  virtual ~DeviceProgram() = default;
  /// On the executor's thread, the same for all runs. Instructions of a stream keep their order, and wait for those of others as the program says. Returns
  /// when nothing of the run is under way and its results are in the output buffer. Allocates nothing after the first time. Throws a Failure that
  /// says which instruction it was; the other ranks know of it then.
  virtual void run(const Run& run) = 0;
  /// On any thread, where nobody writes there. The bytes are inside the arena.
  virtual void read(uint64_t offset, uint8_t* bytes, uint64_t num_bytes) = 0;
  /// On any thread, where no section runs.
  virtual void write(uint64_t offset, const uint8_t* bytes, uint64_t num_bytes) = 0;
  /// The arena, where it is memory of this process, so that others than `write` may fill it; else null.
  virtual uint8_t* memory() = 0;
  /// Adds what only the device knows.
  virtual void describe(titan_memory& memory) const = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;
  Engine(const Engine&) = delete;
  const Backend& backend;  // its kernels; programs are for the target of that name
  const int threads;       // of this process, that kernels compute on

  virtual void describe(titan_device_info& info) const = 0;
  /// The memory that there is for programs now, of which processes share some.
  virtual MemoryLimit memory(const MemorySharing& sharing) const = 0;
  /// On the executor's thread: from now on those of this process run on these cores.
  virtual void bind(const std::vector<Core>& cores) = 0;
  /// On the executor's thread: billions a second, on so many threads.
  virtual double measure(titan_measure measure, int64_t n, int threads) = 0;
  /// On the executor's thread: zeroed memory for a program, which stays where it is; `world` where it has collectives. Memory that is not there is a
  /// Failure here, and no run's.
  virtual std::unique_ptr<DeviceProgram> load(Program& program, comm::World* world) = 0;

 protected:
  Engine(const Backend& backend, int threads) : backend(backend), threads(threads) {}
};

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

/// Throws a Failure where an output of an instruction is infinite or NaN; `fetch` gives its elements to this process, as they lie.
template <class Fetch> void check_finite(const Program& program, uint64_t n, Fetch fetch) {
  const Instruction& instruction = program.instructions[n];
  for (int i = instruction.first_output; i < instruction.first_output + instruction.num_outputs; i++) {
    Tensor tensor = instruction.call[i];
    tensor.data = fetch(tensor);
    const int64_t element = tensor.dtype == DType::f32      ? find_not_finite<float>(tensor)
                            : tensor.dtype == DType::f64    ? find_not_finite<double>(tensor)
                            : tensor.dtype == DType::bf16   ? find_not_finite<bf16>(tensor)
                            : tensor.dtype == DType::f8e4m3 ? find_not_finite<f8e4m3>(tensor)
                            : tensor.dtype == DType::f8e5m2 ? find_not_finite<f8e5m2>(tensor)
                                                            : -1;
    if (element < 0) continue;
    throw program.failure(TITAN_STATUS_NOT_FINITE, n, text("instruction ", n, " (", instruction.kernel->name, " in ", instruction.scope, ") made output ",
                                                           program.operand_name(n, i), " infinite or NaN, first at element ", element));
  }
}

}  // namespace titan
