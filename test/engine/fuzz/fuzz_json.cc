// Any bytes as JSON: a value or an error that says where.
#include "../../../gpu-node/native/json.h"
#include "scratch.h"

namespace {

size_t count(const sparrow::Json& value) {
  size_t n = 1;
  for (const sparrow::Json& item : value.items) n += count(item);
  for (const auto& [name, field] : value.fields) n += count(field);
  return n;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const sparrow::Result<sparrow::Json> parsed = sparrow::parse_json(text);
  if (parsed.ok())
    sparrow::fuzz::expect(count(parsed.value()) <= size, "more values than bytes");
  else
    sparrow::fuzz::expect(parsed.status().message.find(" at byte ") != std::string::npos, "an error without a place");
  return 0;
}
