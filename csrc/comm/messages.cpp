#include "messages.h"

#include <algorithm>
#include <cstring>

#include "combine.h"
#include "pieces.h"

namespace titan::comm {
namespace {

constexpr int64_t MOST_MESSAGE_BYTES = int64_t{1} << 30;
constexpr int64_t ROWS_IN_LANE = 16;                // of a ring_shift

void copy(char* to, const char* from, int64_t bytes) { std::memcpy(to, from, static_cast<size_t>(bytes)); }

/// Begins stages ahead of those that end, one in each lane: begin(lane, start, count) and end(...) of [0, total) in steps of `most`.
template <class Begin, class End> bool in_stages(int64_t total, int64_t most, Begin begin, End end) {
  const int64_t stages = (total + most - 1) / most;
  const auto lane = [](int64_t k) { return static_cast<int>(k % LANES); };
  const auto count = [&](int64_t k) { return std::min(most, total - k * most); };
  for (int64_t k = 0; k < stages + LANES - 1; k++) {
    if (k < stages) begin(lane(k), k * most, count(k));
    const int64_t ended = k - LANES + 1;
    if (ended >= 0 && ended < stages && !end(lane(ended), ended * most, count(ended))) return false;
  }
  return true;
}

}  // namespace

struct Messages::Context {
  const titan_comm_call& call;
  const titan_comm_wait& wait;
  int64_t size;  // bytes of an element
};

void Messages::make_room(bool sent, int64_t stage_bytes) {
  stage_bytes_ = stage_bytes;
  const auto all = static_cast<size_t>(stage_bytes * size * LANES);
  if (sent && sent_.size() < all) sent_.resize(all);
  if (received_.size() < all) received_.resize(all);
}

bool Messages::all_gather(const Context& c, const titan_comm_tensor& tensor) {
  const int64_t total = static_cast<int64_t>(tensor.outer * tensor.chunk), most = stage_elements(size, c.size);
  const auto* in = static_cast<const char*>(tensor.in);
  const auto piece = [&](int r) { return static_cast<char*>(tensor.out) + r * static_cast<int64_t>(tensor.chunk) * c.size; };
  const bool is_dense = tensor.outer == 1;  // pieces arrive where they belong
  if (!is_dense) make_room(false, most * c.size);
  const auto place = [&](int r, const char* from, int64_t start, int64_t count) {
    each_run(tensor.chunk, size, c.size, start, count, [&](int64_t part, int64_t whole, int64_t n) { copy(piece(r) + whole, from + (part - start * c.size), n); });
  };
  return in_stages(
      total, most,
      [&](int lane, int64_t start, int64_t count) {
        for (int i = 1; i < size; i++) {
          const int to = (rank + i) % size, from = (rank + size - i) % size;
          receive(lane, from, is_dense ? piece(from) + start * c.size : received(lane, from), count * c.size);
          send(lane, to, in + start * c.size, count * c.size);
        }
        place(rank, in + start * c.size, start, count);
      },
      [&](int lane, int64_t start, int64_t count) {
        if (!finish(lane, c.wait)) return false;
        for (int r = 0; r < size && !is_dense; r++)
          if (r != rank) place(r, received(lane, r), start, count);
        return true;
      });
}

/// Every rank sends each other its piece, and adds what it gets.
bool Messages::reduce_scatter(const Context& c, const titan_comm_tensor& tensor) {
  const int64_t total = static_cast<int64_t>(tensor.outer * tensor.chunk), most = stage_elements(size, c.size);
  const bool is_dense = tensor.outer == 1;
  make_room(!is_dense, most * c.size);
  const auto piece = [&](int r) { return static_cast<const char*>(tensor.in) + r * static_cast<int64_t>(tensor.chunk) * c.size; };
  const auto packed = [&](int lane, int r, int64_t start) { return is_dense ? piece(r) + start * c.size : sent(lane, r); };
  return in_stages(
      total, most,
      [&](int lane, int64_t start, int64_t count) {
        for (int i = 0; i < size; i++) {
          const int to = (rank + i) % size, from = (rank + size - i) % size;
          if (!is_dense)
            each_run(tensor.chunk, size, c.size, start, count, [&](int64_t part, int64_t whole, int64_t n) { copy(sent(lane, to) + (part - start * c.size), piece(to) + whole, n); });
          if (i == 0) continue;
          receive(lane, from, received(lane, from), count * c.size);
          send(lane, to, packed(lane, to, start), count * c.size);
        }
      },
      [&](int lane, int64_t start, int64_t count) {
        if (!finish(lane, c.wait)) return false;
        for (int r = 0; r < size; r++) parts_[static_cast<size_t>(r)] = r == rank ? packed(lane, r, start) : received(lane, r);
        combine(DType{c.call.dtype}, c.call.by, parts_.data(), size, static_cast<char*>(tensor.out) + start * c.size, count);
        return true;
      });
}

/// Pieces are reduced, then gathered. `in` and `out` may be one: a piece is only overwritten when its owner has it.
bool Messages::all_reduce(const Context& c, const titan_comm_tensor& tensor) {
  const int64_t total = static_cast<int64_t>(tensor.chunk), most = stage_elements(size, c.size);
  make_room(false, most * c.size);
  const auto* in = static_cast<const char*>(tensor.in);
  auto* out = static_cast<char*>(tensor.out);
  struct Piece { int64_t start, bytes, count; };
  const auto piece = [&](int r, int64_t start, int64_t count) -> Piece {
    const int64_t each = (count + size - 1) / size, begin = std::min(r * each, count), n = std::min(each, count - begin);
    return {(start + begin) * c.size, n * c.size, n};
  };
  return in_stages(
      total, most * size,
      [&](int lane, int64_t start, int64_t count) {
        const Piece own = piece(rank, start, count);
        for (int i = 1; i < size; i++) {
          const int to = (rank + i) % size, from = (rank + size - i) % size;
          const Piece theirs = piece(to, start, count);
          if (own.bytes) receive(lane, from, received(lane, from), own.bytes);
          if (theirs.bytes) send(lane, to, in + theirs.start, theirs.bytes);
        }
      },
      [&](int lane, int64_t start, int64_t count) {
        if (!finish(lane, c.wait)) return false;
        const Piece own = piece(rank, start, count);
        for (int r = 0; r < size; r++) parts_[static_cast<size_t>(r)] = r == rank ? in + own.start : received(lane, r);
        combine(DType{c.call.dtype}, c.call.by, parts_.data(), size, out + own.start, own.count);
        for (int i = 1; i < size; i++) {
          const int to = (rank + i) % size, from = (rank + size - i) % size;
          const Piece theirs = piece(from, start, count);
          if (theirs.bytes) receive(lane, from, out + theirs.start, theirs.bytes);
          if (own.bytes) send(lane, to, out + own.start, own.bytes);
        }
        return finish(lane, c.wait);
      });
}

/// From the member before, to the one behind, as it lies.
bool Messages::ring_shift(const Context& c, const titan_comm_tensor& tensor) {
  const int64_t row = static_cast<int64_t>(tensor.chunk) * c.size;
  const int before = (rank + size - 1) % size, behind = (rank + 1) % size;
  return in_stages(
      static_cast<int64_t>(tensor.outer), ROWS_IN_LANE,
      [&](int lane, int64_t first, int64_t rows) {
        for (int64_t o = first; o < first + rows; o++) {
          for (int64_t start = 0; start < row; start += MOST_MESSAGE_BYTES) {
            const int64_t bytes = std::min(MOST_MESSAGE_BYTES, row - start);
            receive(lane, before, static_cast<char*>(tensor.out) + o * static_cast<int64_t>(tensor.out_step) * c.size + start, bytes);
            send(lane, behind, static_cast<const char*>(tensor.in) + o * static_cast<int64_t>(tensor.in_step) * c.size + start, bytes);
          }
        }
      },
      [&](int lane, int64_t, int64_t) { return finish(lane, c.wait); });
}

/// Every rank sends each other its piece, which lies in runs of `in_run` elements there and of `out_run` here.
bool Messages::all_to_all(const Context& c, const titan_comm_tensor& tensor) {
  const int64_t total = static_cast<int64_t>(tensor.outer * tensor.chunk), most = stage_elements(size, c.size);
  make_room(true, most * c.size);
  return in_stages(
      total, most,
      [&](int lane, int64_t start, int64_t count) {
        for (int i = 0; i < size; i++) {
          const int to = (rank + i) % size, from = (rank + size - i) % size;
          const char* piece = static_cast<const char*>(tensor.in) + to * static_cast<int64_t>(tensor.in_run) * c.size;
          each_run(tensor.in_run, size, c.size, start, count, [&](int64_t part, int64_t whole, int64_t n) { copy(sent(lane, to) + (part - start * c.size), piece + whole, n); });
          if (i == 0) continue;
          receive(lane, from, received(lane, from), count * c.size);
          send(lane, to, sent(lane, to), count * c.size);
        }
      },
      [&](int lane, int64_t start, int64_t count) {
        if (!finish(lane, c.wait)) return false;
        for (int r = 0; r < size; r++) {
          const char* from = r == rank ? sent(lane, r) : received(lane, r);
          char* to = static_cast<char*>(tensor.out) + r * static_cast<int64_t>(tensor.out_run) * c.size;
          each_run(tensor.out_run, size, c.size, start, count, [&](int64_t part, int64_t whole, int64_t n) { copy(to + whole, from + (part - start * c.size), n); });
        }
        return true;
      });
}

/// All messages of an exchange are on their way before any is waited for, so it does not matter in which order members list them.
bool Messages::exchange(const Context& c) {
  for (uint32_t i = 0; i < c.call.num_tensors; i++) {
    const titan_comm_tensor& tensor = c.call.tensors[i];
    const auto total = static_cast<int64_t>(tensor.chunk);
    for (int64_t start = 0; start < total; start += MOST_MESSAGE_BYTES) {
      const int64_t bytes = std::min(MOST_MESSAGE_BYTES, total - start);
      if (tensor.out) receive(0, static_cast<int>(tensor.from), static_cast<char*>(tensor.out) + start, bytes);
      if (tensor.in) send(0, static_cast<int>(tensor.to), static_cast<const char*>(tensor.in) + start, bytes);
    }
  }
  return finish(0, c.wait);
}

titan_comm_result Messages::run(const titan_comm_call& call, const titan_comm_wait& wait) {
  const Context context = {call, wait, static_cast<int64_t>(size_of(DType{call.dtype}))};
  const auto of = [&](const titan_comm_tensor& tensor) {
    if (call.kind == titan_comm_all_gather) return all_gather(context, tensor);
    if (call.kind == titan_comm_reduce_scatter) return reduce_scatter(context, tensor);
    if (call.kind == titan_comm_ring_shift) return ring_shift(context, tensor);
    if (call.kind == titan_comm_all_to_all) return all_to_all(context, tensor);
    return all_reduce(context, tensor);
  };
  if (call.kind == titan_comm_exchange) return exchange(context) ? TITAN_COMM_OK : TITAN_COMM_GAVE_UP;
  for (uint32_t i = 0; i < call.num_tensors; i++) {
    const titan_comm_tensor& tensor = call.tensors[i];
    if (tensor.outer && tensor.chunk && !of(tensor)) return TITAN_COMM_GAVE_UP;
  }
  return TITAN_COMM_OK;
}

titan_comm_result Messages::run(const titan_comm_stages& stages, const titan_comm_wait& wait) {
  const bool well = in_stages(
      static_cast<int64_t>(stages.count), 1,
      [&](int lane, int64_t stage, int64_t) {
        const titan_comm_tensor* tensors = nullptr;
        const uint32_t count = stages.begin(stages.context, static_cast<uint64_t>(stage), &tensors);
        for (const titan_comm_tensor* tensor = tensors; tensor < tensors + count; tensor++)
          if (tensor->out) receive(lane, static_cast<int>(tensor->from), static_cast<char*>(tensor->out), static_cast<int64_t>(tensor->chunk));
          else send(lane, static_cast<int>(tensor->to), static_cast<const char*>(tensor->in), static_cast<int64_t>(tensor->chunk));
      },
      [&](int lane, int64_t stage, int64_t) { return finish(lane, wait) && (stages.end(stages.context, static_cast<uint64_t>(stage)), true); });
  return well ? TITAN_COMM_OK : TITAN_COMM_GAVE_UP;
}

titan_comm_result Messages::gather(const void* mine, void* all, int64_t bytes, const titan_comm_wait& wait) {
  make_room(true, std::max(bytes, stage_bytes_));
  copy(sent(0, 0), static_cast<const char*>(mine), bytes);
  for (int i = 1; i < size; i++) {
    const int to = (rank + i) % size, from = (rank + size - i) % size;
    receive(0, from, received(0, from), bytes);
    send(0, to, sent(0, 0), bytes);
  }
  if (!finish(0, wait)) return TITAN_COMM_GAVE_UP;
  for (int r = 0; r < size; r++) copy(static_cast<char*>(all) + r * bytes, r == rank ? sent(0, 0) : received(0, r), bytes);
  return TITAN_COMM_OK;
}

}  // namespace titan::comm
