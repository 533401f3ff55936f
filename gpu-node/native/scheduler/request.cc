// Field names are those of EngineOptions, SequenceSpec and EngineStats in gpu-node/engine/engine.ts.
#include "request.h"

#include <charconv>
#include <climits>
#include <cmath>

#include "../json_fields.h"

namespace sparrow {
namespace {

constexpr int kTopLogprobsMax = 20;
constexpr double kBiasMax = 1000;

}  // namespace

Result<EngineOptions> parse_options(std::string_view json) {
  JsonFields from(json);
  EngineOptions options;
  from.text("modelDir", options.model_dir);
  from.text("isa", options.isa);
  from.text("kv", options.kv);
  from.text("attention", options.attention);
  from.integer("threads", options.threads, 0, 256);
  from.integer("kvPages", options.kv_pages, 0, INT_MAX);
  from.integer("kvBytes", options.kv_bytes, 0, int64_t{1} << 53);
  from.text("cacheDir", options.cache_dir);
  from.integer("cacheBytes", options.cache_bytes, 0, int64_t{1} << 53);
  from.integer("contextLength", options.context, 0, INT_MAX);
  from.integer("stepTokens", options.step_tokens, 1, 8192);
  from.integer("maxRunning", options.max_running, 1, 4096);
  from.flag("dense", options.dense);
  from.flag("speculate", options.speculate);
  if (options.model_dir.empty()) from.refuse("modelDir", "a folder is needed");
  if (const Status status = from.finish(); !status.ok()) return status;
  return options;
}

namespace {

/// {"token id": what its logit gains, ...}
void read_bias(JsonFields& from, std::vector<std::pair<int32_t, double>>& out) {
  const Json* field = from.raw("logitBias");
  if (!field) return;
  if (!field->is(Json::Kind::kObject)) return from.refuse("logitBias", "an object is needed");
  for (const auto& [name, gain] : field->fields) {
    int32_t id = -1;
    const auto read = std::from_chars(name.data(), name.data() + name.size(), id);
    if (read.ec != std::errc() || read.ptr != name.data() + name.size() || id < 0)
      return from.refuse("logitBias", name + " is no token id");
    if (!gain.is(Json::Kind::kNumber) || !(std::abs(gain.number) <= kBiasMax))
      return from.refuse("logitBias", "a gain is no number from -1000 to 1000");
    out.emplace_back(id, gain.number);
  }
}

void read_sampling(JsonFields& from, Request& request) {
  Sampling& sampling = request.sampling;
  from.number("temperature", sampling.temperature, 0, 100);
  from.number("topP", sampling.top_p, 0, 1);
  from.u64("seed", sampling.seed);
  from.number("minP", sampling.min_p, 0, 1);
  from.integer("topK", sampling.top_k, 0, INT_MAX);
  from.number("frequencyPenalty", sampling.frequency, -100, 100);
  from.number("presencePenalty", sampling.presence, -100, 100);
  from.number("repetitionPenalty", sampling.repetition, 0.01, 100);
  read_bias(from, sampling.bias);
  from.integer("minTokens", request.min_tokens, 0, INT_MAX);
  from.flag("ignoreEos", request.ignore_eos);
  from.integer("topLogprobs", request.top_logprobs, 0, kTopLogprobsMax);
  from.flag("promptLogprobs", request.prompt_logprobs);
}

}  // namespace

Result<Request> parse_request(std::string_view json) {
  JsonFields from(json);
  Request request;
  int64_t id = 0;
  from.integer("id", id, 0, int64_t{1} << 53);
  request.id = static_cast<uint64_t>(id);
  from.text("cacheSalt", request.salt);
  from.text("account", request.account);
  from.integer("priority", request.priority, kPriorityMin, kPriorityMax);
  from.integer("deadlineMs", request.deadline_ms, 1, int64_t{1} << 40);
  from.integer("maxTokens", request.max_tokens, 1, INT_MAX);
  read_sampling(from, request);
  from.flag("masked", request.masked);
  if (const Status status = from.finish(); !status.ok()) return status;
  return request;
}

std::string to_json(const EngineStats& s) {
  const std::pair<const char*, int64_t> fields[] = {{"running", s.running},
                                                    {"waiting", s.waiting},
                                                    {"kvPagesUsed", s.pages_used},
                                                    {"kvPagesCached", s.pages_cached},
                                                    {"kvPages", s.pages},
                                                    {"steps", s.steps},
                                                    {"busy", s.busy},
                                                    {"prefillTokens", s.prefill_tokens},
                                                    {"decodeTokens", s.decode_tokens},
                                                    {"cachedTokens", s.cached_tokens},
                                                    {"sparseQueries", s.sparse_queries},
                                                    {"draftTokens", s.draft_tokens},
                                                    {"acceptedTokens", s.accepted_tokens},
                                                    {"preemptions", s.preemptions},
                                                    {"recomputedTokens", s.recomputed_tokens},
                                                    {"admitted", s.admitted},
                                                    {"queueWaitMicroseconds", s.queue_wait_us},
                                                    {"deadlines", s.deadlines},
                                                    {"memoryHits", s.hits.memory},
                                                    {"diskHits", s.hits.disk},
                                                    {"evictions", s.evictions},
                                                    {"diskPages", s.disk.pages},
                                                    {"diskBytes", s.disk.bytes},
                                                    {"diskPending", s.disk.pending},
                                                    {"diskReads", s.disk.reads},
                                                    {"diskWrites", s.disk.writes},
                                                    {"diskEvictions", s.disk.evictions},
                                                    {"diskCorrupt", s.disk.corrupt},
                                                    {"diskErrors", s.disk.errors}};
  std::string out;
  for (const auto& [name, value] : fields)
    out += std::string(out.empty() ? "{\"" : ",\"") + name + "\":" + std::to_string(value);
  return out + "}";
}

}  // namespace sparrow
