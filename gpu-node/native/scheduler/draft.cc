// Behind a step's sampling: the MTP layer fills its cache for every confirmed token and guesses one token ahead for the
// sequences that go on.
#include <algorithm>

#include "engine.h"

namespace sparrow {

/// A token pairs with the one behind it, so a page's last row speaks of a token outside the page. In a page shared
/// through the prefix cache that may be another continuation's token: such a row can cost a guess, never an answer,
/// since answers come from the main model's rows only.
void Engine::add_pairs(const Sequence& s, Pairs& pairs) const {
  const int32_t known = static_cast<int32_t>(s.tokens.size());
  // A sequence at its end leaves only its published pages to others.
  const int32_t end = s.ending ? std::min(s.computed, s.published * SP_PAGE_TOKENS) : s.computed;
  if (!s.hidden.empty()) {
    pairs.rows.push_back(~static_cast<int32_t>(pairs.kept.size()));
    pairs.kept.push_back(s.hidden);
    pairs.batch.add(s.tokens[static_cast<size_t>(s.begin)], s.begin - 1, s.pages.data());
  }
  for (int32_t at = s.begin; at < end && at + 1 < known; at++) {
    pairs.rows.push_back(s.first_row + at - s.begin);
    pairs.batch.add(s.tokens[static_cast<size_t>(at + 1)], at, s.pages.data());
  }
}

/// A draft is drawn as its token will be: same seed, same position, the MTP layer's logits in place of the model's.
/// So a guess from logits near the model's meets its token at any temperature. It is only made
/// while two tokens are left and stands at the first of them, so that its row lies inside what submit() found room for.
void Engine::draft() {
  Pairs pairs;
  std::vector<Sequence*> drafting;
  for (auto& s : running_) {
    if (!s->in_step) continue;
    add_pairs(*s, pairs);
    s->hidden.clear();
    if (s->is_held()) {
      const auto last = model_.hidden_of(s->first_row + s->in_step - 1);
      s->hidden.assign(last.begin(), last.end());
    }
    if (s->ending || s->prefilling() || s->left() < 2 || s->request.masked) continue;
    drafting.push_back(s.get());
    pairs.batch.logit_rows.push_back(pairs.batch.size() - 1);
  }
  if (pairs.rows.empty()) return;
  model_.draft(pairs, kv_, logits_);
  model_.each(static_cast<int64_t>(drafting.size()), [&](int64_t i) {
    Sequence& s = *drafting[static_cast<size_t>(i)];
    s.draft = choose(s, logits_row(static_cast<int32_t>(i)), {});
  });
}

}  // namespace sparrow
