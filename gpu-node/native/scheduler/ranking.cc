// Everything here goes down the intervals until one decides.
#include "ranking.h"

#include <algorithm>
#include <utility>

#include "levels.h"

namespace sparrow {
namespace {

// Of logit / temperature, from the largest down; the last one holds all from e^-64 of its weight on.
constexpr int32_t kIntervals = 1024;
constexpr double kIntervalsPerUnit = 16;

using Places = std::array<int32_t, kSoftmaxBlock>;

/// Each value's interval, never a later one for a larger value.
void place(const Softmax& softmax, std::span<const double> values, Places& places) {
  const double scale = kIntervalsPerUnit * softmax.sharpness();
  const double top = softmax.top, *from = values.data();
  const size_t count = values.size();
  int32_t* to = places.data();
  run_widest(SP_LOOP() {
    for (size_t i = 0; i < count; i++) {
      const double down = (top - from[i]) * scale;
      to[i] = static_cast<int32_t>(down < kIntervals - 1 ? down : kIntervals - 1);
    }
  });
}

void add(Likeliest& sum, const Likeliest& more) {
  sum.count += more.count;
  sum.weight += more.weight;
}

}  // namespace

Ranking::Ranking(std::span<const double> values, const Softmax& softmax)
    : values_(values), softmax_(softmax), intervals_(kIntervals) {
  Weights weights;
  Places places;
  each_block(values, [&](size_t, std::span<const double> block) {
    weigh(softmax, block, weights);
    place(softmax, block, places);
    for (size_t i = 0; i < block.size(); i++)
      if (weights[i] > 0) add(intervals_[static_cast<size_t>(places[i])], {1, weights[i]});
  });
}

const std::vector<Ranking::Token>& Ranking::sorted(int32_t interval) {
  if (std::exchange(sorted_, interval) == interval) return tokens_;
  tokens_.clear();
  Weights weights;
  Places places;
  each_block(values_, [&](size_t first, std::span<const double> block) {
    place(softmax_, block, places);
    const auto end = places.begin() + static_cast<std::ptrdiff_t>(block.size());
    if (std::find(places.begin(), end, interval) == end) return;
    weigh(softmax_, block, weights);
    for (size_t i = 0; i < block.size(); i++)
      if (places[i] == interval && weights[i] > 0)
        tokens_.push_back({static_cast<int32_t>(first + i), block[i], weights[i]});
  });
  std::sort(tokens_.begin(), tokens_.end(),
            [](const Token& a, const Token& b) { return a.value > b.value || (a.value == b.value && a.id < b.id); });
  return tokens_;
}

Likeliest Ranking::all() const {
  Likeliest sum;
  for (const Likeliest& interval : intervals_) add(sum, interval);
  return sum;
}

Likeliest Ranking::first(int64_t count) {
  Likeliest sum;
  for (int32_t i = 0; i < kIntervals && sum.count < count; i++) {
    const Likeliest& whole = intervals_[static_cast<size_t>(i)];
    if (sum.count + whole.count <= count) {
      add(sum, whole);
      continue;
    }
    for (const Token& token : sorted(i)) {
      add(sum, {1, token.weight});
      if (sum.count == count) return sum;
    }
  }
  return sum;
}

Likeliest Ranking::reaching(double weight) {
  Likeliest sum;
  for (int32_t i = 0; i < kIntervals; i++) {
    const Likeliest& whole = intervals_[static_cast<size_t>(i)];
    if (whole.count == 0 || sum.weight + whole.weight < weight) {
      add(sum, whole);
      continue;
    }
    for (const Token& token : sorted(i)) {
      add(sum, {1, token.weight});
      if (sum.weight >= weight) return sum;
    }
  }
  return sum;
}

int32_t Ranking::beyond(double weight, int64_t among) {
  for (int32_t i = 0; i < kIntervals && among > 0; i++) {
    const Likeliest& whole = intervals_[static_cast<size_t>(i)];
    if (weight >= whole.weight && among >= whole.count) {
      weight -= whole.weight, among -= whole.count;
      continue;
    }
    for (const Token& token : sorted(i)) {
      weight -= token.weight;
      if (weight < 0) return token.id;
      if (--among == 0) return -1;
    }
  }
  return -1;
}

}  // namespace sparrow
