// A missing tensor is a mistake in the test itself: map::at ends the program with its name on the way.
#include "fixtures.h"

#include <cstring>
#include <filesystem>

#include "../../../gpu-node/native/model/checkpoint.h"

namespace sparrow::test {

Result<Fixtures> Fixtures::open(const std::string& dir) {
  Fixtures out;
  std::error_code wrong;
  for (const auto& file : std::filesystem::directory_iterator(dir, wrong)) {
    if (file.path().extension() != ".safetensors") continue;
    Result<std::string> text = read_text_file(file.path().string(), 1u << 20);
    if (!text.ok()) return text.status();
    std::map<std::string, TensorView> views;
    const uint8_t* data = reinterpret_cast<const uint8_t*>(text.value().data());
    if (Status s = parse_safetensors(data, text.value().size(), file.path().filename().string(), views); !s.ok())
      return s;
    for (const auto& [name, view] : views) {
      const std::string full = file.path().stem().string() + "/" + name;
      out.tensors_[full] = {view.shape, {view.data, view.data + view.bytes}};
    }
  }
  if (wrong || out.tensors_.empty()) return error(Code::kBadArgument, dir + ": holds no component goldens");
  return out;
}

std::vector<std::string> Fixtures::names() const {
  std::vector<std::string> out;
  for (const auto& [name, tensor] : tensors_) out.push_back(name);
  return out;
}

template <class T>
std::vector<T> Fixtures::read(const std::string& name) const {
  const Tensor& t = tensors_.at(name);
  std::vector<T> out(t.bytes.size() / sizeof(T));
  std::memcpy(out.data(), t.bytes.data(), out.size() * sizeof(T));
  return out;
}

template std::vector<float> Fixtures::read(const std::string&) const;
template std::vector<double> Fixtures::read(const std::string&) const;
template std::vector<int32_t> Fixtures::read(const std::string&) const;

}  // namespace sparrow::test
