// The component goldens, by "file/tensor", through the engine's own safetensors reader.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "../../../gpu-node/native/status.h"

namespace sparrow::test {

class Fixtures {
 public:
  /// Reads every .safetensors file of `dir`.
  static Result<Fixtures> open(const std::string& dir);

  bool has(const std::string& name) const { return tensors_.contains(name); }
  std::vector<std::string> names() const;
  std::vector<int64_t> shape(const std::string& name) const { return tensors_.at(name).shape; }
  std::vector<float> floats(const std::string& name) const { return read<float>(name); }
  std::vector<double> doubles(const std::string& name) const { return read<double>(name); }
  std::vector<int32_t> ints(const std::string& name) const { return read<int32_t>(name); }
  std::vector<uint8_t> bytes(const std::string& name) const { return tensors_.at(name).bytes; }

 private:
  struct Tensor {
    std::vector<int64_t> shape;
    std::vector<uint8_t> bytes;
  };

  /// The stored bytes as T; the caller knows the dtype.
  template <class T>
  std::vector<T> read(const std::string& name) const;

  std::map<std::string, Tensor> tensors_;
};

}  // namespace sparrow::test
