#include "access.h"

#include <algorithm>
#include <iterator>

namespace titan {

std::vector<Range> join_ranges(std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  std::vector<Range> joined;
  for (const Range& range : ranges) {
    if (range.begin == range.end) continue;
    if (joined.empty() || joined.back().end < range.begin) joined.push_back(range);
    else joined.back().end = std::max(joined.back().end, range.end);
  }
  return joined;
}

bool overlap(const std::vector<Range>& ranges, Range other) {
  const auto behind = std::partition_point(ranges.begin(), ranges.end(), [&](const Range& range) { return range.end <= other.begin; });
  return behind != ranges.end() && behind->begin < other.end;
}

bool Access::conflict(const std::vector<Range>& writes, const Use& use) { return use.writes || overlap(writes, use.range); }

void Access::begin(uint32_t stream, const std::vector<Range>& writes) {
  std::unique_lock lock(mutex_);
  sections_[stream] = &writes;  // copies that come from now on wait, so that they cannot hold the section up for ever
  changed_.wait(lock, [&] { return std::none_of(copies_.begin(), copies_.end(), [&](const Use& use) { return conflict(writes, use); }); });
}

void Access::end(uint32_t stream) {
  {
    std::lock_guard lock(mutex_);
    sections_[stream] = nullptr;
  }
  changed_.notify_all();
}

void Access::enter(const Use& use) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return std::none_of(std::begin(sections_), std::end(sections_), [&](const auto* writes) { return writes && conflict(*writes, use); }); });
  copies_.push_back(use);
}

void Access::leave(const Use& use) {
  {
    std::lock_guard lock(mutex_);
    const auto same = [&](const Use& other) { return other.range.begin == use.range.begin && other.range.end == use.range.end && other.writes == use.writes; };
    copies_.erase(std::find_if(copies_.begin(), copies_.end(), same));
  }
  changed_.notify_all();
}

}  // namespace titan
