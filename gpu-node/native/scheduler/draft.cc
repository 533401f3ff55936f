// Behind a step's sampling: the MTP layer fills its cache for every confirmed token and guesses one token ahead for the
// sequences that go on.
#include <algorithm>
#include <unordered_set>

#include "engine.h"

namespace sparrow {

/// The MTP layer's rows that a step writes, so that each has one writer: sequences of one prompt that publish a page in
/// one step have the same page from then on.
class Engine::Written {
 public:
  bool add(const Sequence& s, int32_t at) {
    const int64_t page = s.pages[static_cast<size_t>(at / SP_PAGE_TOKENS)];
    return rows_.insert(page * SP_PAGE_TOKENS + at % SP_PAGE_TOKENS).second;
  }

 private:
  std::unordered_set<int64_t> rows_;
};

/// A token pairs with the one behind it, so a page's last row speaks of a token outside the page. In a page shared
/// through the prefix cache that may be another continuation's token: such a row can cost a guess, never an answer,
/// since answers come from the main model's rows only. False when the last token's row is another sequence's to write.
bool Engine::add_pairs(const Sequence& s, Pairs& pairs, Written& written) const {
  const int32_t known = static_cast<int32_t>(s.tokens.size());
  // A sequence at its end leaves only its published pages to others.
  const int32_t end = std::min(s.ending ? std::min(s.computed, s.published * SP_PAGE_TOKENS) : s.computed, known - 1);
  bool added = true;
  if (!s.hidden.empty() && written.add(s, s.begin - 1)) {
    pairs.rows.push_back(~static_cast<int32_t>(pairs.kept.size()));
    pairs.kept.push_back(s.hidden);
    pairs.batch.add(s.tokens[static_cast<size_t>(s.begin)], s.begin - 1, s.pages.data());
  }
  for (int32_t at = s.begin; at < end; at++) {
    added = written.add(s, at);
    if (!added) continue;
    pairs.rows.push_back(s.first_row + at - s.begin);
    pairs.batch.add(s.tokens[static_cast<size_t>(at + 1)], at, s.pages.data());
  }
  return added;
}

/// A draft is drawn as its token will be: same seed, same position, the MTP layer's logits in place of the model's.
/// So a guess from logits near the model's meets its token at any temperature. It is only made
/// while two tokens are left and stands at the first of them, so that its row lies inside what submit() found room for.
void Engine::draft() {
  Pairs pairs;
  Written written;
  std::vector<Sequence*> drafting;
  for (auto& s : running_) {
    if (!s->in_step) continue;
    const bool paired = add_pairs(*s, pairs, written);
    s->hidden.clear();
    if (s->is_held()) {
      const auto last = model_.hidden_of(s->first_row + s->in_step - 1);
      s->hidden.assign(last.begin(), last.end());
    }
    if (!paired || s->ending || s->prefilling() || s->left() < 2 || s->request.masked) continue;
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
