// Any bytes as model.safetensors.index.json, beside a sound config and two sound shards.
#include "scratch.h"

namespace {

void prepare(const sparrow::fuzz::Scratch& scratch) {
  scratch.write("config.json", sparrow::fuzz::seed("config/tiny.json"));
  for (const char* shard : {"a.safetensors", "b.safetensors"})
    scratch.write(shard, sparrow::fuzz::seed(std::string("checkpoint/") + shard));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const sparrow::fuzz::Scratch scratch;
  static const bool prepared = (prepare(scratch), true);
  if (prepared)
    scratch.write("model.safetensors.index.json", std::string_view(reinterpret_cast<const char*>(data), size));
  sparrow::fuzz::run_model(scratch.dir());
  return 0;
}
