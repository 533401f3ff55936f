// What a sequence's settings make of its next logits: the token, and what the client wants to know about it.
#include "engine.h"

namespace sparrow {

/// Depends on logits and the sequence's own tokens, so a draft is chosen here as its token will be.
int32_t Engine::choose(Sequence& s, std::span<const float> logits, std::span<const uint32_t> mask) {
  const Request& r = s.request;
  if (r.sampling.penalises()) s.history.absorb(s.tokens, s.prompt);
  SampleInput in{.sampling = r.sampling};
  in.allowed = allowed();
  in.position = static_cast<uint64_t>(s.sampled());
  in.history = &s.history;
  in.mask = mask;
  if (r.ignore_eos || s.sampled() < r.min_tokens) in.banned = model_.config().eos_token_ids;
  return sample(logits, in);
}

/// True when the token just sampled completes a stop string behind the least number of tokens.
bool Engine::stops(Sequence& s, int32_t token) {
  if (s.request.stop.empty() || static_cast<size_t>(token) >= options_.token_bytes.size()) return false;
  const bool armed = s.sampled() > s.request.min_tokens;
  return s.stop_match.push(options_.token_bytes[static_cast<size_t>(token)], s.request.stop, armed);
}

}  // namespace sparrow
