// Any bytes as model.safetensors, beside a sound config: mapped, checked, loaded, packed, and run when all of it holds.
#include <algorithm>
#include <cstring>
#include <vector>

#include "../../../gpu-node/native/model/checkpoint.h"
#include "scratch.h"

namespace {

/// A mapping ends at a page, so a tensor that passes the end of its file by less would be read unseen.
void expect_inside(const uint8_t* data, size_t size) {
  std::map<std::string, sparrow::TensorView> tensors;
  if (!sparrow::parse_safetensors(data, size, "memory", tensors).ok()) return;
  for (const auto& [name, t] : tensors)
    sparrow::fuzz::expect(t.data >= data && t.data + t.bytes <= data + size, "a tensor lies outside its file");
}

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t size_max);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  expect_inside(data, size);
  static const sparrow::fuzz::Scratch scratch;
  static const bool prepared = (scratch.write("config.json", sparrow::fuzz::seed("config/tiny.json")), true);
  if (prepared) scratch.write("model.safetensors", std::string_view(reinterpret_cast<const char*>(data), size));
  sparrow::fuzz::run_model(scratch.dir());
  return 0;
}

/// Seven of eight times only the header or only the body changes and the length stays true, so that the damage is not
/// always found in the first eight bytes.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t size_max, unsigned choice) {
  uint64_t header = 0;
  if (size >= 8) std::memcpy(&header, data, 8);
  if (size < 8 || header > size - 8 || choice % 8 == 0) return LLVMFuzzerMutate(data, size, size_max);
  const size_t body_at = 8 + static_cast<size_t>(header);
  if (choice % 8 < 3 && size_max > body_at)
    return body_at + LLVMFuzzerMutate(data + body_at, size - body_at, size_max - body_at);
  const std::vector<uint8_t> body(data + body_at, data + size);
  if (size_max < 8 + body.size() + 1) return size;
  header = LLVMFuzzerMutate(data + 8, static_cast<size_t>(header), size_max - 8 - body.size());
  std::memcpy(data, &header, 8);
  std::copy(body.begin(), body.end(), data + 8 + header);
  return 8 + static_cast<size_t>(header) + body.size();
}
