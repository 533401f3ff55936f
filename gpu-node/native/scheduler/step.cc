// One step: every decoding sequence adds one token and a guessed one, prefilling ones share a budget; forward, sample,
// tell.
#include <algorithm>

#include "engine.h"

namespace sparrow {

bool Engine::step() {
  Batch batch;
  for (auto& s : running_) s->in_step = 0, s->logit_row = -1;
  add_decodes(batch);
  add_prefills(batch);
  if (batch.size() == 0) return false;
  const auto stopping = [this] {
    std::lock_guard lock(mutex_);
    return stop_;
  };
  if (!model_.forward(batch, kv_, logits_, stopping)) return false;
  counters_.steps++;
  for (auto& s : running_)
    if (s->in_step) after_forward(*s);
  if (model_.drafts()) draft();
  reap();
  return true;
}

/// Tells of the sequences whose end this step decided.
void Engine::reap() {
  for (auto& s : running_)
    if (s->ending) end(*s, *s->ending, std::move(s->message));
  std::erase_if(running_, [](const auto& s) { return s->ended; });
}

void Engine::add_decodes(Batch& batch) {
  for (auto& s : running_) {
    if (s->prefilling() || s->is_held()) continue;
    add_tokens(*s, batch, s->draft < 0 ? 1 : 2);
    counters_.decode_tokens++;
  }
}

/// The budget goes round in equal shares, starting with another sequence each step.
void Engine::add_prefills(Batch& batch) {
  std::vector<Sequence*> prefilling;
  for (auto& s : running_)
    if (s->prefilling()) prefilling.push_back(s.get());
  if (prefilling.empty()) return;
  std::rotate(prefilling.begin(), prefilling.begin() + static_cast<std::ptrdiff_t>(turn_++ % prefilling.size()),
              prefilling.end());
  int32_t budget = options_.step_tokens;
  for (size_t i = 0; i < prefilling.size() && budget > 0; i++) {
    const int32_t share = std::max(1, budget / static_cast<int32_t>(prefilling.size() - i));
    const int32_t count = std::min(share, prefilling[i]->prompt - prefilling[i]->computed);
    add_tokens(*prefilling[i], batch, count);
    budget -= count;
    counters_.prefill_tokens += count;
  }
}

/// The next `count` tokens of s, a draft behind the last known one. Logits from the last known token on.
void Engine::add_tokens(Sequence& s, Batch& batch, int32_t count) {
  const int32_t end = s.computed + count, known = static_cast<int32_t>(s.tokens.size());
  while (static_cast<int32_t>(s.pages.size()) * SP_PAGE_TOKENS < end) {
    s.pages.push_back(pool_.take());  // never -1: admission reserved the worst case
    s.reserved--;
    reserved_--;
  }
  s.in_step = count;
  s.begin = s.computed;
  s.first_row = batch.size();
  for (int32_t at = s.computed; at < end; at++) {
    if (at == known - 1) s.logit_row = static_cast<int32_t>(batch.logit_rows.size());
    if (at >= known - 1) batch.logit_rows.push_back(batch.size());
    batch.add(at < known ? s.tokens[static_cast<size_t>(at)] : s.draft, at, s.pages.data());
  }
}

/// Samples, and where the draft turns out to be what was sampled, once more from the row behind it. What is sampled
/// depends on the true logits alone, so a draft changes how many steps an answer takes and nothing else.
void Engine::after_forward(Sequence& s) {
  const int32_t draft = std::exchange(s.draft, -1);
  s.computed += draft < 0 ? s.in_step : s.in_step - 1;  // a rejected draft's rows are overwritten by the next step
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

int32_t Engine::allowed() const {
  return options_.token_bytes.empty() ? model_.config().vocab_size : static_cast<int32_t>(options_.token_bytes.size());
}

/// The token that s goes on with, -1 when the logits have none.
int32_t Engine::sample_row(Sequence& s, int32_t row) {
  const size_t vocab = static_cast<size_t>(model_.config().vocab_size);
  return sample_from(s, std::span<const float>(logits_).subspan(static_cast<size_t>(row) * vocab, vocab), {});
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
