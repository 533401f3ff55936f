// Chunks of sequences through Model::forward, side by side in each step, their logits kept.
#include "probe.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace sparrow {
namespace {

Status check(const Model& model, const ProbeSequence& s) {
  const int32_t n = static_cast<int32_t>(s.tokens.size()), vocab = model.config().vocab_size;
  if (n == 0 || n > model.context())
    return error(Code::kContextTooLong, "tokens: from 1 to " + std::to_string(model.context()));
  if (s.chunk < 1) return error(Code::kBadArgument, "chunk: at least 1");
  if (std::any_of(s.tokens.begin(), s.tokens.end(), [&](int32_t id) { return id < 0 || id >= vocab; }))
    return error(Code::kBadArgument, "tokens: no token of the vocabulary");
  return ok_status();
}

/// Page numbers of each sequence, back to front, so that a kernel that ignores the table is caught.
std::vector<std::vector<int32_t>> lay_tables(const std::vector<ProbeSequence>& sequences, int& pages) {
  std::vector<std::vector<int32_t>> tables;
  for (const ProbeSequence& s : sequences) {
    tables.emplace_back((s.tokens.size() + SP_PAGE_TOKENS - 1) / SP_PAGE_TOKENS);
    std::iota(tables.back().rbegin(), tables.back().rend(), pages);
    pages += static_cast<int>(tables.back().size());
  }
  return tables;
}

/// Adds to `taps` what a step shows.
Tap collector(std::vector<ProbeTap>& taps) {
  return [&taps, known = std::map<std::pair<int, std::string>, size_t>()](
             int layer, const char* name, const float* data, int64_t rows, int64_t columns) mutable {
    auto [slot, fresh] = known.try_emplace({layer, name}, taps.size());
    if (fresh) taps.push_back({layer, name, columns, {}});
    ProbeTap& t = taps[slot->second];
    t.columns = columns;
    t.data.insert(t.data.end(), data, data + rows * columns);
  };
}

}  // namespace

Status evaluate(Model& model, std::vector<ProbeSequence>& sequences, bool last_only, std::vector<ProbeTap>* taps) {
  for (const ProbeSequence& s : sequences) {
    if (const Status wrong = check(model, s); !wrong.ok()) return wrong;
  }
  int pages = 0;
  const auto tables = lay_tables(sequences, pages);
  KvMemory kv = model.make_kv(pages);
  if (pages > 0 && !kv.bytes.data())
    return error(Code::kEngineFailed, "no memory for " + std::to_string(pages) + " KV pages");
  const Tap tap = taps ? collector(*taps) : Tap();
  std::vector<size_t> done(sequences.size());
  for (;;) {
    Batch batch;
    Pairs pairs;                // for the MTP layer; the last token of a sequence has none after it
    std::vector<size_t> owner;  // of each row of logits
    for (size_t i = 0; i < sequences.size(); i++) {
      const ProbeSequence& s = sequences[i];
      const size_t end = std::min(s.tokens.size(), done[i] + static_cast<size_t>(s.chunk));
      for (size_t at = done[i]; at < end; at++) {
        if (!last_only || at + 1 == s.tokens.size()) {
          batch.logit_rows.push_back(batch.size());
          owner.push_back(i);
        }
        if (at + 1 < s.tokens.size()) {
          pairs.rows.push_back(batch.size());
          pairs.batch.logit_rows.push_back(pairs.batch.size());
          pairs.batch.add(s.tokens[at + 1], static_cast<int32_t>(at), tables[i].data());
        }
        batch.add(s.tokens[at], static_cast<int32_t>(at), tables[i].data());
      }
      done[i] = end;
    }
    if (batch.size() == 0) return ok_status();
    Lines<float> logits;
    model.forward(batch, kv, logits, nullptr, taps ? &tap : nullptr);
    const size_t vocab = static_cast<size_t>(model.config().vocab_size);
    for (size_t row = 0; row < owner.size(); row++) {
      std::vector<float>& to = sequences[owner[row]].logits;
      to.insert(to.end(), logits.data() + row * vocab, logits.data() + (row + 1) * vocab);
    }
    if (taps && model.drafts() && !pairs.rows.empty()) model.draft(pairs, kv, logits, &tap);
  }
}

}  // namespace sparrow
