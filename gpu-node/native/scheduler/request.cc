// Field names are those of EngineOptions, SequenceSpec and EngineStats in gpu-node/engine/engine.ts.
#include "request.h"

#include <climits>

#include "../json_fields.h"

namespace sparrow {

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
  from.flag("dense", options.dense);
  from.flag("speculate", options.speculate);
  if (options.model_dir.empty()) from.refuse("modelDir", "a folder is needed");
  if (const Status status = from.finish(); !status.ok()) return status;
  return options;
}

Result<Request> parse_request(std::string_view json) {
  JsonFields from(json);
  Request request;
  int64_t id = 0;
  from.integer("id", id, 0, int64_t{1} << 53);
  request.id = static_cast<uint64_t>(id);
  from.text("cacheSalt", request.salt);
  from.integer("maxTokens", request.max_tokens, 1, INT_MAX);
  from.number("temperature", request.sampling.temperature, 0, 100);
  from.number("topP", request.sampling.top_p, 0, 1);
  from.u64("seed", request.sampling.seed);
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
                                                    {"prefillTokens", s.prefill_tokens},
                                                    {"decodeTokens", s.decode_tokens},
                                                    {"cachedTokens", s.cached_tokens},
                                                    {"sparseQueries", s.sparse_queries},
                                                    {"draftTokens", s.draft_tokens},
                                                    {"acceptedTokens", s.accepted_tokens},
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
