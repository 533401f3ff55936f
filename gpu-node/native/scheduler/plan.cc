// What each sequence adds to a step, and the pages for it. Where pages run out, the last in rank gives its own back and
// computes again later: what it published stays findable until the memory is really needed.
#include <algorithm>
#include <map>

#include "engine.h"

namespace sparrow {
namespace {

/// Pages that s lacks for its next `count` tokens.
int64_t lacking(const Sequence& s, int32_t count) {
  const int64_t needed = (int64_t{s.computed} + count + SP_PAGE_TOKENS - 1) / SP_PAGE_TOKENS;
  return std::max<int64_t>(needed - static_cast<int64_t>(s.pages.size()), 0);
}

/// One round of equal shares; what one does not need goes to those behind it. Returns what was given.
template <class Parts, class Give>
int32_t round_of_shares(const Parts& parts, size_t first, int32_t budget, const Give& give) {
  int32_t left = budget;
  for (size_t i = 0; i < parts.size() && left > 0; i++) {
    const int32_t share = std::max(1, left / static_cast<int32_t>(parts.size() - i));
    left -= give(parts[(first + i) % parts.size()], share);
  }
  return budget - left;
}

/// Splits `budget` in equal shares; what some do not need goes to the others. Returns what was given.
template <class Parts, class Give>
int32_t in_equal_shares(const Parts& parts, size_t first, int32_t budget, const Give& give) {
  int32_t left = budget;
  while (left > 0) {
    const int32_t given = round_of_shares(parts, first, left, give);
    if (given == 0) break;
    left -= given;
  }
  return budget - left;
}

}  // namespace

/// How many sequences decode.
int32_t Engine::plan_decodes() {
  int32_t decodes = 0;
  for (auto& s : running_) {
    if (s->prefilling() || s->is_held()) continue;
    s->in_step = s->draft < 0 ? 1 : 2;
    decodes++;
  }
  return decodes;
}

/// The most urgent first; among equals, accounts share alike, and an account's sequences share what it gets.
void Engine::plan_prefills(int32_t budget) {
  std::vector<Sequence*> prefilling;
  for (auto& s : running_)
    if (s->prefilling()) prefilling.push_back(s.get());
  std::stable_sort(prefilling.begin(), prefilling.end(),
                   [this](const Sequence* a, const Sequence* b) { return urgency(*a) > urgency(*b); });
  int32_t given = 0;
  for (size_t from = 0; from < prefilling.size() && given < budget;) {
    size_t to = from;
    while (to < prefilling.size() && urgency(*prefilling[to]) == urgency(*prefilling[from])) to++;
    given += share(std::span<Sequence* const>(prefilling).subspan(from, to - from), budget - given);
    from = to;
  }
  turn_++;
}

int32_t Engine::share(std::span<Sequence* const> of_one_level, int32_t budget) {
  std::map<std::string, std::vector<Sequence*>> by_account;
  for (Sequence* s : of_one_level) by_account[s->request.account].push_back(s);
  std::vector<const std::vector<Sequence*>*> accounts;
  for (const auto& [account, sequences] : by_account) accounts.push_back(&sequences);
  const auto take = [](Sequence* s, int32_t most) {
    const int32_t more = std::min(most, s->goal - s->computed - s->in_step);
    s->in_step += more;
    return more;
  };
  return in_equal_shares(accounts, turn_, budget, [&](const std::vector<Sequence*>* sequences, int32_t part) {
    return in_equal_shares(*sequences, turn_ / accounts.size(), part, take);
  });
}

/// Best in rank first, so that what is preempted has no pages of this step yet.
void Engine::find_pages() {
  std::sort(running_.begin(), running_.end(), [this](const auto& a, const auto& b) { return goes_before(*a, *b); });
  for (size_t i = 0; i < running_.size();) i += fit(i);
}

/// Pages for what the sequence adds to the step; it adds nothing where there are none. False when it was preempted
/// itself.
bool Engine::fit(size_t index) {
  Sequence& s = *running_[index];
  while (lacking(s, s.in_step) > pool_.available()) {
    if (s.in_step == 2 && s.draft >= 0) {
      s.draft = -1;
      s.in_step = 1;
      continue;
    }
    size_t last = running_.size() - 1;
    while (last > index && running_[last]->pages.empty()) last--;
    if (running_[last]->pages.empty()) {
      s.in_step = 0;
      break;
    }
    preempt(last);
    if (last == index) return false;
  }
  for (int64_t more = lacking(s, s.in_step); more > 0; more--) s.pages.push_back(pool_.take());
  return true;
}

/// Back to the queue with all it has but its pages: tokens, draws, counters, logits that wait for a mask.
void Engine::preempt(size_t index) {
  Sequence& s = *running_[index];
  pool_.release_all(s.pages);
  s.goal = static_cast<int32_t>(s.tokens.size());
  s.computed = s.published = s.in_step = 0;
  s.draft = -1;
  s.hidden.clear();
  s.fetch = {};
  counters_.preemptions++;
  waiting_.push_back(std::move(running_[index]));
  running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(index));
}

}  // namespace sparrow
