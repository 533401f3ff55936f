// Small tensors are read whole, large ones in samples: training changes a tensor everywhere, and hashing 700 GB would
// take longer than loading them.
#include "model_digest.h"

#include <dlfcn.h>

#include <algorithm>

#include "checksum.h"

namespace sparrow {
namespace {

constexpr size_t kWhole = size_t{4} << 20, kSample = size_t{64} << 10, kStride = size_t{4} << 20;
constexpr size_t kFileMax = size_t{1} << 30;

uint64_t sum_of(const TensorView& tensor) {
  if (tensor.bytes <= kWhole) return checksum(tensor.data, tensor.bytes, 0);
  uint64_t sum = checksum(tensor.data + tensor.bytes - kSample, kSample, 0);
  for (size_t at = 0; at + kSample <= tensor.bytes; at += kStride) sum = checksum(tensor.data + at, kSample, sum);
  return sum;
}

/// The file that this very function was loaded from: the addon, or a test program.
std::string own_code() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<const void*>(&model_digest), &info) || !info.dli_fname) return "";
  const Result<std::string> file = read_text_file(info.dli_fname, kFileMax);
  return file.ok() ? file.value() : "";
}

}  // namespace

Digest model_digest(const Model& model, const std::string& dir, const std::string& how) {
  Sha256 sha;
  const std::string code = own_code();
  sha.add_text("sparrow cache 1").add_text(how).add_text(model.backend().name).add_text(model.backend().isa);
  sha.add_number(checksum(code.data(), code.size(), 0)).add_number(SP_PAGE_TOKENS);
  sha.add_number(static_cast<uint64_t>(model.page_bytes())).add_number(model.drafts());
  const Result<std::string> config = read_text_file(dir + "/config.json", kFileMax);
  sha.add_text(config.ok() ? config.value() : "");
  for (const auto& [name, tensor] : model.weights().files->tensors()) {
    sha.add_text(name).add_text(shape_text(tensor.shape)).add_number(static_cast<uint64_t>(tensor.dtype));
    sha.add_number(sum_of(tensor));
  }
  return sha.finish();
}

}  // namespace sparrow
