// One step: every decoding sequence adds one token, prefilling ones share a budget; then forward, sample, tell.
#include <algorithm>

#include "engine.h"

namespace sparrow {

bool Engine::step() {
  if (running_.empty()) return false;
  Batch batch;
  for (auto& s : running_) s->in_step = 0, s->logit_row = -1;
  add_decodes(batch);
  add_prefills(batch);
  const auto stopping = [this] {
    std::lock_guard lock(mutex_);
    return stop_;
  };
  if (!model_.forward(batch, kv_, logits_, stopping)) return false;
  counters_.steps++;
  const size_t vocab = static_cast<size_t>(model_.config().vocab_size);
  for (auto& s : running_) {
    if (!s->in_step) continue;
    const std::span<const float> row =
        s->logit_row < 0 ? std::span<const float>{}
                         : std::span<const float>(logits_).subspan(static_cast<size_t>(s->logit_row) * vocab, vocab);
    after_forward(*s, row);
  }
  std::erase_if(running_, [](const auto& s) { return s->ended; });
  return true;
}

void Engine::add_decodes(Batch& batch) {
  for (auto& s : running_) {
    if (s->prefilling()) continue;
    add_tokens(*s, batch, 1);
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

void Engine::add_tokens(Sequence& s, Batch& batch, int32_t count) {
  const int32_t end = s.computed + count;
  while (static_cast<int32_t>(s.pages.size()) * SP_PAGE_TOKENS < end) {
    s.pages.push_back(pool_.take());  // never -1: admission reserved the worst case
    s.reserved--;
    reserved_--;
  }
  for (int32_t at = s.computed; at < end; at++) {
    batch.ids.push_back(s.tokens[static_cast<size_t>(at)]);
    batch.positions.push_back(at);
    batch.tables.push_back(s.pages.data());
  }
  s.in_step = count;
  if (end < static_cast<int32_t>(s.tokens.size())) return;
  s.logit_row = static_cast<int32_t>(batch.logit_rows.size());
  batch.logit_rows.push_back(batch.size() - 1);
}

void Engine::after_forward(Sequence& s, std::span<const float> logits) {
  s.computed += s.in_step;
  while ((s.published + 1) * SP_PAGE_TOKENS <= s.computed) {
    const size_t p = static_cast<size_t>(s.published++);
    pool_.publish(s.pages[p], s.request.salt, p ? s.pages[p - 1] : -1, s.tokens.data() + p * SP_PAGE_TOKENS);
  }
  if (logits.empty()) return;
  const int32_t allowed =
      options_.token_bytes.empty() ? model_.config().vocab_size : static_cast<int32_t>(options_.token_bytes.size());
  const int32_t token = sample(logits, allowed, s.request.sampling, static_cast<uint64_t>(s.sampled()));
  if (token < 0) return end(s, EndReason::kError, "the model's output is not finite");
  sampled(s, token);
}

void Engine::sampled(Sequence& s, int32_t token) {
  s.tokens.push_back(token);
  Event e;
  e.kind = Event::Kind::kTokens;
  e.id = s.request.id;
  e.token = token;
  events_.push_back(std::move(e));
  const auto& eos = model_.config().eos_token_ids;
  if (std::find(eos.begin(), eos.end(), token) != eos.end()) return end(s, EndReason::kStopToken);
  if (!s.request.stop.empty() && static_cast<size_t>(token) < options_.token_bytes.size()) {
    const std::string& bytes = options_.token_bytes[static_cast<size_t>(token)];
    size_t longest = 0;
    for (const std::string& stop : s.request.stop) longest = std::max(longest, stop.size());
    s.tail += bytes;
    for (const std::string& stop : s.request.stop) {
      if (s.tail.find(stop) != std::string::npos) return end(s, EndReason::kStopString);
    }
    if (s.tail.size() >= longest) s.tail.erase(0, s.tail.size() - (longest - 1));
  }
  if (s.sampled() >= s.request.max_tokens) end(s, EndReason::kLength);
}

}  // namespace sparrow
