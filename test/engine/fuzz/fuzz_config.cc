// Any bytes as config.json, and behind a NUL byte as generation_config.json, beside a sound small checkpoint.
#include "scratch.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const sparrow::fuzz::Scratch scratch;
  static const bool prepared =
      (scratch.write("model.safetensors", sparrow::fuzz::seed("checkpoint/tiny.safetensors")), true);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t cut = text.find('\0');
  scratch.write("config.json", text.substr(0, cut));
  scratch.write("generation_config.json", prepared && cut != text.npos ? text.substr(cut + 1) : "");
  sparrow::fuzz::run_model(scratch.dir());
  return 0;
}
