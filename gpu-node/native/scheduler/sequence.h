// What the engine is asked, what it answers, and the state of one sequence in between.
#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "../cache/tiers.h"
#include "logprobs.h"
#include "sampler.h"
#include "stop_match.h"

namespace sparrow {

using Clock = std::chrono::steady_clock;

/// Of a request; the highest goes first.
constexpr int32_t kPriorityMin = -2, kPriorityMax = 2;

struct Request {
  uint64_t id = 0;
  std::vector<int32_t> tokens;
  std::string salt;     // pages are shared only under the same salt
  std::string account;  // who shares fairly with the others
  int32_t priority = 0;
  int64_t deadline_ms = 0;  // ends it so long after it was submitted; 0: never
  int32_t max_tokens = 1;
  Sampling sampling;
  int32_t min_tokens = 0;         // before them neither an end token nor a stop string ends the sequence
  bool ignore_eos = false;        // end tokens are not drawn
  int32_t top_logprobs = -1;      // how many of the likeliest tokens are told with each, -1: no log-probabilities
  bool prompt_logprobs = false;   // they are told of the prompt's tokens too, so all of it is computed
  std::vector<std::string> stop;  // byte strings
  bool masked = false;            // each token waits for its mask, see mask.cc
};

enum class EndReason { kStopToken, kStopString, kLength, kCancelled, kDeadline, kError };

constexpr const char* name_of(EndReason reason) {
  switch (reason) {
    case EndReason::kStopToken:
      return "stop_token";
    case EndReason::kStopString:
      return "stop_string";
    case EndReason::kLength:
      return "length";
    case EndReason::kCancelled:
      return "cancelled";
    case EndReason::kDeadline:
      return "deadline";
    case EndReason::kError:
      return "error";
  }
  return "error";
}

/// The tokens allowed as a sequence's `position`th sampled one: bit i % 32 of word i / 32. No words: all of them.
struct Mask {
  uint64_t id = 0;
  int32_t position = -1;
  std::vector<uint32_t> words;
};

struct Event {
  enum class Kind { kStart, kPrompt, kTokens, kEnd } kind = Kind::kStart;
  uint64_t id = 0;
  int32_t token = -1;                  // kTokens; kPrompt: one of the prompt's, from the second on, in order
  std::vector<TokenLogprob> logprobs;  // of the token, where asked for: its own, then those of the likeliest
  int64_t prompt_tokens = 0, cached_tokens = 0, computed_tokens = 0, sampled_tokens = 0;
  EndReason reason = EndReason::kError;
  std::string message;
};

struct Sequence {
  explicit Sequence(Request r)
      : request(std::move(r)),
        tokens(request.tokens),
        keys(request.salt),
        prompt(static_cast<int32_t>(tokens.size())),
        goal(prompt) {}

  Request request;
  std::vector<int32_t> tokens;  // prompt, then sampled
  KeyChain keys;                // names of its whole pages
  std::vector<int32_t> pages;   // page table
  Fetch fetch;                  // what it has asked of the disk
  int32_t prompt;
  int32_t goal;            // tokens that prefill brings: the prompt; after a preemption all that were known then
  int32_t cached = 0;      // prompt tokens found in the cache when it first ran
  int32_t computed = 0;    // tokens whose cache rows are there, cached ones included
  int32_t prefilled = 0;   // the most of the prompt that ever was: what it costs, preempted or not
  int32_t published = 0;   // pages handed to the pool's index
  int32_t draft = -1;      // the MTP layer's guess at the token behind `tokens`, -1: none
  int32_t in_step = 0;     // tokens of the current step, a draft included
  int32_t begin = 0;       // position of the first of them
  int32_t first_row = 0;   // its row among the step's tokens
  int32_t logit_row = -1;  // first row of the current step's logits (a draft has the next one), -1: none
  int32_t score_row = -1;  // as logit_row, of the rows that tell of the prompt
  int32_t scored = 1;      // prompt tokens told of; the first has no log-probability
  uint64_t number = 0;     // in order of arrival
  Clock::time_point arrived;
  std::optional<Clock::time_point> deadline;
  bool started = false;  // it has run before
  History history;       // for penalties
  StopMatch stop_match;
  bool ended = false;
  std::optional<EndReason> ending;  // decided in this step, told at its end
  std::string message;

  /// The last one that came, and the logits that wait for theirs.
  Mask mask;
  std::vector<float> held;
  std::vector<float> hidden;  // of the last step's last token, whose pair is not known while logits are held

  int32_t sampled() const { return static_cast<int32_t>(tokens.size()) - prompt; }
  bool prefilling() const { return computed < goal; }
  /// What comes out of the cache has no logits.
  bool scores_prompt() const { return request.prompt_logprobs && scored < prompt; }
  /// Its logits lie aside: it takes no part in steps until it is sampled.
  bool is_held() const { return !held.empty(); }
  bool has_mask() const { return mask.position == sampled(); }
  /// How many tokens may still be sampled.
  int32_t left() const { return request.max_tokens - sampled(); }
};

}  // namespace sparrow
