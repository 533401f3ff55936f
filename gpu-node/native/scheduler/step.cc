// One step: every decoding sequence adds one token and a guessed one, prefilling ones share a budget (plan.cc);
// forward, sample, tell.
#include <algorithm>
#include <iterator>

#include "engine.h"

namespace sparrow {

bool Engine::step() {
  for (auto& s : running_) s->in_step = 0, s->logit_row = s->score_row = -1;
  const int32_t decodes = plan_decodes();
  plan_prefills(pace_.prefill_tokens(decodes, std::max(options_.step_tokens - decodes, 1)));
  find_pages();
  Batch batch;
  int32_t decoded = 0, prefilled = 0;
  for (const bool prefill : {false, true}) {
    for (auto& s : running_) {
      if (s->in_step == 0 || s->prefilling() != prefill) continue;
      add_tokens(*s, batch);
      (prefill ? prefilled : decoded) += prefill ? s->in_step : 1;
    }
  }
  if (batch.size() == 0) return false;
  const auto begin = Clock::now();
  const auto stopping = [this] {
    std::lock_guard lock(mutex_);
    return stop_;
  };
  if (!model_.forward(batch, kv_, logits_, stopping)) return false;
  counters_.steps++;
  counters_.decode_tokens += decoded;
  counters_.prefill_tokens += prefilled;
  for (auto& s : running_)
    if (s->in_step) after_forward(*s);
  sample_rows();
  for (auto& s : running_)
    if (s->in_step) publish_pages(*s);
  if (model_.drafts()) draft();
  reap();
  pace_.observe(decoded, prefilled, std::chrono::duration<double>(Clock::now() - begin).count());
  return true;
}

/// Tells of the sequences whose end was decided.
void Engine::reap() {
  for (auto* sequences : {&running_, &waiting_}) {
    for (auto& s : *sequences)
      if (s->ending) end(*s, *s->ending, std::move(s->message));
    std::erase_if(*sequences, [](const auto& s) { return s->ended; });
  }
}

/// The next tokens of s, a draft behind the last known one. Logits from the last known token on, and of a prompt that
/// is scored from the token before the first not told of.
void Engine::add_tokens(Sequence& s, Batch& batch) {
  const int32_t end = s.computed + s.in_step, known = static_cast<int32_t>(s.tokens.size());
  s.begin = s.computed;
  s.first_row = batch.size();
  for (int32_t at = s.computed; at < end; at++) {
    const int32_t row = static_cast<int32_t>(batch.logit_rows.size());
    const bool scores = s.scores_prompt() && at >= s.scored - 1 && at < s.prompt - 1;
    if (scores && s.score_row < 0) s.score_row = row;
    if (at == known - 1) s.logit_row = row;
    if (scores || at >= known - 1) batch.logit_rows.push_back(batch.size());
    batch.add(at < known ? s.tokens[static_cast<size_t>(at)] : s.draft, at, s.pages.data());
  }
}

/// What does not depend on a sampled token.
void Engine::after_forward(Sequence& s) {
  s.computed += s.draft < 0 ? s.in_step : s.in_step - 1;  // a rejected draft's rows are overwritten by the next step
  s.prefilled = std::max(s.prefilled, std::min(s.computed, s.prompt));
  if (s.score_row >= 0) score(s);
  if (s.logit_row >= 0 && s.request.masked) hold(s, s.logit_row);
}

/// Samples, and where the draft turns out to be what was sampled, once more from the row behind it. What is sampled
/// depends on the true logits alone, so a draft changes how many steps an answer takes and nothing else.
void Engine::sample_rows() {
  std::vector<Row> rows, behind;
  for (auto& s : running_)
    if (s->in_step && s->logit_row >= 0 && !s->request.masked) rows.push_back({s.get(), logits_row(s->logit_row)});
  sample_each(rows);
  for (const Row& row : rows) {
    Sequence& s = *row.sequence;
    const int32_t draft = std::exchange(s.draft, -1);
    if (draft < 0) continue;
    counters_.draft_tokens++;
    if (s.ending == EndReason::kError || s.tokens.back() != draft) continue;
    counters_.accepted_tokens++;
    s.computed++;
    if (s.ending) continue;
    counters_.decode_tokens++;
    behind.push_back({&s, logits_row(s.logit_row + 1)});
  }
  sample_each(behind);
}

/// Tells of the prompt's tokens that this step's logits speak of: a row is about the token behind its own.
void Engine::score(Sequence& s) {
  const int32_t first = s.scored, count = std::min(s.begin + s.in_step + 1, s.prompt) - first;
  std::vector<Event> told(static_cast<size_t>(std::max(count, 0)));
  model_.each(count, [&](int64_t i) {
    Event& e = told[static_cast<size_t>(i)];
    e.kind = Event::Kind::kPrompt;
    e.id = s.request.id;
    e.token = s.tokens[static_cast<size_t>(first + i)];
    e.logprobs =
        logprobs_of(logits_row(s.score_row + static_cast<int32_t>(i)), allowed(), e.token, s.request.top_logprobs);
  });
  std::move(told.begin(), told.end(), std::back_inserter(events_));
  s.scored += std::max(count, 0);
}

std::span<const float> Engine::logits_row(int32_t row) const {
  const size_t vocab = static_cast<size_t>(model_.config().vocab_size);
  return std::span<const float>(logits_).subspan(static_cast<size_t>(row) * vocab, vocab);
}

int32_t Engine::allowed() const {
  return options_.token_bytes.empty() ? model_.config().vocab_size : static_cast<int32_t>(options_.token_bytes.size());
}

/// The tokens that sequences go on with: chosen on all threads, told of in order.
void Engine::sample_each(std::span<const Row> rows) {
  struct Choice {
    int32_t token;
    std::vector<TokenLogprob> logprobs;
  };
  std::vector<Choice> choices(rows.size());
  model_.each(static_cast<int64_t>(rows.size()), [&](int64_t i) {
    const Row& row = rows[static_cast<size_t>(i)];
    Choice& choice = choices[static_cast<size_t>(i)];
    choice.token = choose(*row.sequence, row.logits, row.mask);
    const int32_t top = row.sequence->request.top_logprobs;
    if (choice.token >= 0 && top >= 0) choice.logprobs = logprobs_of(row.logits, allowed(), choice.token, top);
  });
  for (size_t i = 0; i < rows.size(); i++) {
    Sequence& s = *rows[i].sequence;
    const int32_t token = choices[i].token;
    if (token >= 0) {
      sampled(s, token, std::move(choices[i].logprobs));
      continue;
    }
    s.ending = EndReason::kError;
    s.message = token == kNotFinite ? "the model's output is not finite" : "no token is allowed";
  }
}

/// Only confirmed tokens count, so what a rejected draft wrote is never shared.
void Engine::publish_pages(Sequence& s) {
  while ((s.published + 1) * SP_PAGE_TOKENS <= s.computed) {
    const size_t p = static_cast<size_t>(s.published++);
    s.pages[p] = pool_.publish(s.pages[p], s.keys.at(p, s.tokens), p ? s.pages[p - 1] : -1,
                               s.tokens.data() + p * SP_PAGE_TOKENS);
  }
}

void Engine::sampled(Sequence& s, int32_t token, std::vector<TokenLogprob> logprobs) {
  s.tokens.push_back(token);
  shares_.charge(s.request.account, kOutputWeight);
  Event e;
  e.kind = Event::Kind::kTokens;
  e.id = s.request.id;
  e.token = token;
  e.logprobs = std::move(logprobs);
  events_.push_back(std::move(e));
  const auto& eos = model_.config().eos_token_ids;
  if (std::find(eos.begin(), eos.end(), token) != eos.end()) return void(s.ending = EndReason::kStopToken);
  if (stops(s, token)) return void(s.ending = EndReason::kStopString);
  if (s.left() <= 0) s.ending = EndReason::kLength;
}

}  // namespace sparrow
