// Chunks of one sequence through Model::forward, every position's logits kept.
#include "probe.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace sparrow {

Status evaluate(Model& model, const std::vector<int32_t>& tokens, int32_t chunk, bool with_taps, Probe& out) {
  const int32_t n = static_cast<int32_t>(tokens.size()), vocab = model.config().vocab_size;
  if (n == 0 || n > model.context())
    return error(Code::kContextTooLong, "tokens: from 1 to " + std::to_string(model.context()));
  if (chunk < 1) return error(Code::kBadArgument, "chunk: at least 1");
  if (std::any_of(tokens.begin(), tokens.end(), [&](int32_t id) { return id < 0 || id >= vocab; }))
    return error(Code::kBadArgument, "tokens: no token of the vocabulary");
  const int pages = (n + SP_PAGE_TOKENS - 1) / SP_PAGE_TOKENS;
  KvMemory kv = model.make_kv(pages);
  std::vector<int32_t> table(static_cast<size_t>(pages));
  std::iota(table.rbegin(), table.rend(), 0);  // back to front, so that a kernel that ignores the table is caught
  std::map<std::pair<int, std::string>, size_t> known;
  const Tap tap = [&](int layer, const char* name, const float* data, int64_t rows, int64_t columns) {
    auto [slot, fresh] = known.try_emplace({layer, name}, out.taps.size());
    if (fresh) out.taps.push_back({layer, name, columns, {}});
    ProbeTap& t = out.taps[slot->second];
    t.columns = columns;
    t.data.insert(t.data.end(), data, data + rows * columns);
  };
  for (int32_t at = 0; at < n; at += chunk) {
    Batch batch;
    for (int32_t i = at; i < std::min(n, at + chunk); i++) {
      batch.ids.push_back(tokens[static_cast<size_t>(i)]);
      batch.positions.push_back(i);
      batch.tables.push_back(table.data());
      batch.logit_rows.push_back(i - at);
    }
    std::vector<float> logits;
    model.forward(batch, kv, logits, nullptr, with_taps ? &tap : nullptr);
    out.logits.insert(out.logits.end(), logits.begin(), logits.end());
  }
  return ok_status();
}

}  // namespace sparrow
