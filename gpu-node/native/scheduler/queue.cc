// Who runs next. Urgency first: priority, and time waited, which lifts nobody above the highest priority there is.
// Among equals the account that was served least, then who came first.
#include <algorithm>

#include "ageing.h"
#include "engine.h"

namespace sparrow {
namespace {

constexpr int32_t kHeadroomPart = 16;  // of all pages, at most, are left to running sequences at an admission

int64_t pages_for(int64_t tokens) {
  return (tokens + SP_PAGE_TOKENS - 1) / SP_PAGE_TOKENS;
}

}  // namespace

/// The time and the highest priority of this round: ranks hold still in between.
void Engine::look_at_clock() {
  now_ = Clock::now();
  top_ = kPriorityMin;
  for (const auto* sequences : {&running_, &waiting_})
    for (const auto& s : *sequences) top_ = std::max(top_, s->request.priority);
}

int32_t Engine::urgency(const Sequence& s) const {
  return aged(s.request.priority, now_ - s.arrived, top_);
}

/// Among those that run, for pages.
bool Engine::goes_before(const Sequence& a, const Sequence& b) const {
  const int32_t of_a = urgency(a), of_b = urgency(b);
  return of_a != of_b ? of_a > of_b : a.number < b.number;
}

/// Among those that wait. One that was preempted has a reader who waits in mid-answer.
bool Engine::is_next(const Sequence& a, const Sequence& b) const {
  const int32_t of_a = urgency(a), of_b = urgency(b);
  if (of_a != of_b) return of_a > of_b;
  if (a.started != b.started) return a.started;
  const int64_t served_a = shares_.served(a.request.account), served_b = shares_.served(b.request.account);
  return served_a != served_b ? served_a < served_b : a.number < b.number;
}

void Engine::end_overdue() {
  for (auto* sequences : {&running_, &waiting_}) {
    for (auto& s : *sequences)
      if (s->deadline && *s->deadline <= now_) end(*s, EndReason::kDeadline);
    std::erase_if(*sequences, [](const auto& s) { return s->ended; });
  }
}

std::optional<Clock::time_point> Engine::next_deadline() const {
  std::optional<Clock::time_point> next;
  for (const auto* sequences : {&running_, &waiting_}) {
    for (const auto& s : *sequences)
      if (s->deadline && (!next || *s->deadline < *next)) next = s->deadline;
  }
  return next;
}

/// Pages that running sequences will take before their next token, beyond those they have.
int64_t Engine::promised() const {
  int64_t pages = 0;
  for (const auto& s : running_) {
    const int64_t needed = pages_for(static_cast<int64_t>(s->tokens.size()) + 1);
    pages += std::max<int64_t>(needed - static_cast<int64_t>(s->pages.size()), 0);
  }
  return pages;
}

/// The next in turn is admitted when its prompt fits; those behind it wait, so that a long prompt gets its turn. One
/// whose pages are on their way from disk lets others pass.
void Engine::admit() {
  std::vector<std::unique_ptr<Sequence>> passed;
  while (!waiting_.empty()) {
    const auto next = std::min_element(waiting_.begin(), waiting_.end(),
                                       [this](const auto& a, const auto& b) { return is_next(*a, *b); });
    Sequence& s = **next;
    const bool fetches =
        !s.scores_prompt() && tiers_.fetching(s.fetch, s.keys, s.tokens, pool_.available() - promised());
    if (!fetches && !try_admit(s)) break;
    (fetches ? passed : running_).push_back(std::move(*next));
    waiting_.erase(next);
  }
  fetching_ = passed.size();
  std::move(passed.begin(), passed.end(), std::back_inserter(waiting_));
}

bool Engine::try_admit(Sequence& s) {
  if (static_cast<int>(running_.size()) >= options_.max_running) return false;
  if (!s.scores_prompt()) s.pages = pool_.share(s.keys, s.tokens);
  const int64_t need = pages_for(static_cast<int64_t>(s.tokens.size()) + 1) - static_cast<int64_t>(s.pages.size());
  // A page for each of those that run: else the newcomer would soon give its own back to them.
  const int64_t headroom = std::min<int64_t>(static_cast<int64_t>(running_.size()), pool_.pages() / kHeadroomPart);
  if (pool_.available() - promised() < need + headroom) {
    pool_.release_all(s.pages);
    return false;
  }
  s.published = static_cast<int32_t>(s.pages.size());
  s.computed = s.published * SP_PAGE_TOKENS;
  if (s.started)
    counters_.recomputed_tokens += s.goal - s.computed;
  else
    start(s);
  return true;
}

/// What the prompt costs is settled here, whatever happens to its pages later.
void Engine::start(Sequence& s) {
  s.started = true;
  s.cached = s.prefilled = s.computed;
  counters_.cached_tokens += s.cached;
  counters_.admitted++;
  counters_.queue_wait_us += std::chrono::duration_cast<std::chrono::microseconds>(now_ - s.arrived).count();
  shares_.picked(s.request.account);
  shares_.charge(s.request.account, kPrefillWeight * (s.prompt - s.cached));
  tiers_.count(s.keys, s.tokens, s.pages);
  Event e;
  e.id = s.request.id;
  e.prompt_tokens = s.prompt;
  e.cached_tokens = s.cached;
  events_.push_back(std::move(e));
  flush();
}

}  // namespace sparrow
