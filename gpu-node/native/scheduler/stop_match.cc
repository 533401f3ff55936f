// A tail one byte shorter than the longest stop string is all that later tokens can need.
#include "stop_match.h"

#include <algorithm>

namespace sparrow {
namespace {

/// Bytes at the end of `text` that begin a UTF-8 character and do not end it.
size_t unfinished(std::string_view text) {
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); back++) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;
    const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

}  // namespace

bool StopMatch::push(std::string_view bytes, const std::vector<std::string>& stops, bool armed) {
  tail_ += bytes;
  if (!armed) {
    tail_.erase(0, tail_.size() - unfinished(tail_));
    return false;
  }
  size_t longest = 1;
  for (const std::string& stop : stops) {
    if (tail_.find(stop) != std::string::npos) return true;
    longest = std::max(longest, stop.size());
  }
  if (tail_.size() >= longest) tail_.erase(0, tail_.size() - (longest - 1));
  return false;
}

}  // namespace sparrow
