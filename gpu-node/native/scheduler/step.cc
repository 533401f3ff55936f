// One step: every decoding sequence adds one token and a guessed one, prefilling ones share a budget (plan.cc);
// forward, sample, tell.
#include <algorithm>

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

/// Samples, and where the draft turns out to be what was sampled, once more from the row behind it. What is sampled
/// depends on the true logits alone, so a draft changes how many steps an answer takes and nothing else.
void Engine::after_forward(Sequence& s) {
  const int32_t draft = std::exchange(s.draft, -1);
  s.computed += draft < 0 ? s.in_step : s.in_step - 1;  // a rejected draft's rows are overwritten by the next step
  s.prefilled = std::max(s.prefilled, std::min(s.computed, s.prompt));
  if (s.score_row >= 0) score(s);
  if (s.logit_row >= 0 && s.request.masked) {
    hold(s, s.logit_row);
  } else if (s.logit_row >= 0) {
    const int32_t token = sample_row(s, s.logit_row);
    if (draft >= 0) counters_.draft_tokens++;
    if (draft >= 0 && token == draft) {
      counters_.accepted_tokens++;
      s.computed++;
      if (!s.ending) {
        counters_.decode_tokens++;
        sample_row(s, s.logit_row + 1);
      }
    }
  }
  publish_pages(s);
}

/// Tells of the prompt's tokens that this step's logits speak of: a row is about the token behind its own.
void Engine::score(Sequence& s) {
  const int32_t end = std::min(s.begin + s.in_step + 1, s.prompt);
  for (int32_t row = s.score_row; s.scored < end; s.scored++, row++) {
    Event e;
    e.kind = Event::Kind::kPrompt;
    e.id = s.request.id;
    e.token = s.tokens[static_cast<size_t>(s.scored)];
    e.logprobs = logprobs_of(logits_row(row), allowed(), e.token, s.request.top_logprobs);
    events_.push_back(std::move(e));
  }
}

std::span<const float> Engine::logits_row(int32_t row) const {
  const size_t vocab = static_cast<size_t>(model_.config().vocab_size);
  return std::span<const float>(logits_).subspan(static_cast<size_t>(row) * vocab, vocab);
}

int32_t Engine::allowed() const {
  return options_.token_bytes.empty() ? model_.config().vocab_size : static_cast<int32_t>(options_.token_bytes.size());
}

/// The token that s goes on with, -1 when the logits have none.
int32_t Engine::sample_row(Sequence& s, int32_t row) {
  return sample_from(s, logits_row(row), {});
}

/// The mask as in SampleInput.
int32_t Engine::sample_from(Sequence& s, std::span<const float> logits, std::span<const uint32_t> mask) {
  const int32_t token = choose(s, logits, mask), top = s.request.top_logprobs;
  if (token >= 0) {
    sampled(s, token, top < 0 ? std::vector<TokenLogprob>() : logprobs_of(logits, allowed(), token, top));
  } else {
    s.ending = EndReason::kError;
    s.message = token == kNotFinite ? "the model's output is not finite" : "no token is allowed";
  }
  return token;
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
