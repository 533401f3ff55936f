// Sequences whose every token waits for a mask: the forward pass goes on meanwhile, the logits are put aside, and the
// others of the batch never wait. No draft is made for them, since it would need masks of positions not yet known.
#include <algorithm>

#include "engine.h"

namespace sparrow {

void Engine::mask(Mask mask) {
  {
    std::lock_guard lock(mutex_);
    masks_.push_back(std::move(mask));
    stats_.busy = 1;
  }
  wake_.notify_one();
}

/// Nothing can be done until a command comes. Holds the lock.
bool Engine::idle() const {
  if (running_.empty() && waiting_.empty()) return true;
  if (!stuck_) return false;
  // Pages that others wait for are held for what comes from disk, whose progress is a command.
  if (tiers_.loading()) return true;
  if (running_.empty()) return waiting_.size() <= fetching_;
  return std::all_of(running_.begin(), running_.end(),
                     [](const auto& s) { return s->is_held() && !s->has_mask() && !s->prefilling(); });
}

/// Gives each mask that came to its sequence, one still in the queue included. Holds the lock.
void Engine::take_masks() {
  for (Mask& mask : masks_) {
    const auto give = [&](auto& sequences) {
      for (auto& s : sequences)
        if (s->request.id == mask.id) s->mask = std::move(mask);
    };
    give(running_);
    give(waiting_);
  }
  masks_.clear();
}

/// Puts aside the logits of the next token; the next round samples it if its mask is there.
void Engine::hold(Sequence& s, int32_t row) {
  const size_t vocab = static_cast<size_t>(model_.config().vocab_size);
  const float* logits = logits_.data() + static_cast<size_t>(row) * vocab;
  s.held.assign(logits, logits + vocab);
}

/// Samples wherever logits and mask have met; a preempted sequence needs no pages for that.
void Engine::sample_held() {
  std::vector<Row> rows;
  for (auto* sequences : {&running_, &waiting_})
    for (auto& s : *sequences)
      if (s->is_held() && s->has_mask()) rows.push_back({s.get(), s->held, s->mask.words});
  sample_each(rows);
  for (const Row& row : rows) {
    row.sequence->held.clear();
    row.sequence->mask.position = -1;
  }
  reap();
}

}  // namespace sparrow
