// A Hugging Face checkpoint on disk: one safetensors file or shards with an index, memory-mapped, looked up by tensor
// name. Everything read from the files is checked before use; an error names the tensor.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../status.h"

namespace sparrow {

enum class DType { kF32, kBF16, kF16, kF8E4M3, kI8, kU8, kOther };

struct TensorView {
  DType dtype = DType::kOther;
  std::vector<int64_t> shape;
  const uint8_t* data = nullptr;  // may be unaligned
  size_t bytes = 0;
};

class MappedFile;

class Checkpoint {
 public:
  /// Opens `dir`/model.safetensors, or the shards that `dir`/model.safetensors.index.json names.
  static Result<Checkpoint> open(const std::string& dir);

  const TensorView* find(const std::string& name) const;
  /// Whether some tensor's name begins so.
  bool any_under(const std::string& prefix) const;
  size_t total_bytes() const { return total_bytes_; }
  /// Gives the files' pages back to the system; they are read again when touched.
  void drop_resident() const;
  size_t tensor_count() const { return tensors_.size(); }
  const std::map<std::string, TensorView>& tensors() const { return tensors_; }

 private:
  Status add_file(const std::string& path, const std::string& label);
  std::vector<std::shared_ptr<MappedFile>> files_;
  std::map<std::string, TensorView> tensors_;
  size_t total_bytes_ = 0;
};

/// Parses a safetensors image; fills `out`. `label` names the file in errors.
Status parse_safetensors(const uint8_t* data, size_t size, const std::string& label,
                         std::map<std::string, TensorView>& out);

Result<std::string> read_text_file(const std::string& path, size_t bytes_max);

std::string shape_text(const std::vector<int64_t>& shape);

}  // namespace sparrow
