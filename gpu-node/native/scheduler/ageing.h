// Waiting makes up for a low priority.
#pragma once
#include <algorithm>
#include <chrono>
#include <cstdint>

namespace sparrow {

constexpr std::chrono::seconds kAgeing{10};  // waited for one priority more

/// A priority after some waiting; never above `top`, the highest there is.
inline int32_t aged(int32_t priority, std::chrono::nanoseconds waited, int32_t top) {
  return static_cast<int32_t>(std::min<int64_t>(priority + waited / kAgeing, top));
}

}  // namespace sparrow
