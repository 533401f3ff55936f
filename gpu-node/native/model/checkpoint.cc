// safetensors: 8-byte little-endian header length, JSON header {name: {dtype, shape, data_offsets}}, raw row-major
// data.
#include "checkpoint.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <set>

#include "../json.h"

namespace sparrow {

/// A read-only mapping, released with the last owner.
class MappedFile {
 public:
  MappedFile(const uint8_t* data, size_t size) : data(data), size(size) {}
  ~MappedFile() { munmap(const_cast<uint8_t*>(data), size); }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  const uint8_t* data;
  size_t size;
};

namespace {

constexpr size_t kHeaderBytesMax = 100u << 20;

int dtype_width(const std::string& name, DType& dtype) {
  if (name == "F32") return dtype = DType::kF32, 4;
  if (name == "BF16") return dtype = DType::kBF16, 2;
  if (name == "F16") return dtype = DType::kF16, 2;
  if (name == "F8_E4M3") return dtype = DType::kF8E4M3, 1;
  if (name == "I8") return dtype = DType::kI8, 1;
  if (name == "U8") return dtype = DType::kU8, 1;
  dtype = DType::kOther;
  if (name == "I64" || name == "U64" || name == "F64") return 8;
  if (name == "I32" || name == "U32") return 4;
  if (name == "I16" || name == "U16") return 2;
  if (name == "BOOL" || name == "F8_E5M2" || name == "F8_E8M0") return 1;
  return 0;
}

bool whole_number(const Json& value, double high, uint64_t& out) {
  if (!value.is(Json::Kind::kNumber) || value.number < 0 || value.number > high ||
      value.number != std::floor(value.number))
    return false;
  out = static_cast<uint64_t>(value.number);
  return true;
}

Status parse_tensor(const std::string& name, const Json& entry, const uint8_t* body, size_t body_size, TensorView& out,
                    uint64_t& begin) {
  const Json *dtype = entry.find("dtype"), *shape = entry.find("shape"), *offsets = entry.find("data_offsets");
  if (!dtype || !shape || !offsets) return invalid(name + ": its header lacks dtype, shape or data_offsets");
  if (!shape->is(Json::Kind::kArray)) return invalid(name + ": its shape is malformed");
  const int width = dtype_width(dtype->string, out.dtype);
  if (!width) return invalid(name + ": unknown dtype '" + dtype->string + "'");
  uint64_t bytes = static_cast<uint64_t>(width);
  for (const Json& side : shape->items) {
    uint64_t n = 0;
    if (!whole_number(side, 1e15, n)) return invalid(name + ": its shape is malformed");
    out.shape.push_back(static_cast<int64_t>(n));
    if (n && bytes > body_size / n)
      return invalid(name + ": its shape " + shape_text(out.shape) + " is larger than the file (truncated?)");
    bytes *= n;
  }
  uint64_t end = 0;
  if (offsets->items.size() != 2 || !whole_number(offsets->items[0], 1e18, begin) ||
      !whole_number(offsets->items[1], 1e18, end) || begin > end || end > body_size) {
    return invalid(name + ": its data_offsets lie outside the file (truncated?)");
  }
  if (end - begin != bytes)
    return invalid(name + ": " + std::to_string(end - begin) + " bytes stored, shape and dtype need " +
                   std::to_string(bytes));
  out.data = body + begin;
  out.bytes = end - begin;
  return ok_status();
}

}  // namespace

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (const int64_t side : shape) out.append(out.size() > 1 ? "," : "").append(std::to_string(side));
  return out.append("]");
}

Status parse_safetensors(const uint8_t* data, size_t size, const std::string& label,
                         std::map<std::string, TensorView>& out) {
  uint64_t header = 0;
  if (size < 8) return invalid(label + ": shorter than a safetensors header");
  std::memcpy(&header, data, 8);
  if (header > kHeaderBytesMax || header > size - 8)
    return invalid(label + ": header length " + std::to_string(header) + " exceeds the file (truncated?)");
  Result<Json> parsed = parse_json({reinterpret_cast<const char*>(data) + 8, static_cast<size_t>(header)});
  if (!parsed.ok()) return invalid(label + ": " + parsed.status().message);
  if (!parsed.value().is(Json::Kind::kObject)) return invalid(label + ": its header is no object");
  const uint8_t* body = data + 8 + header;
  std::vector<std::pair<uint64_t, std::pair<uint64_t, std::string>>> spans;
  for (const auto& [name, entry] : parsed.value().fields) {
    if (name == "__metadata__") continue;
    TensorView view;
    uint64_t begin = 0;
    if (Status s = parse_tensor(name, entry, body, size - 8 - header, view, begin); !s.ok()) return s;
    if (view.bytes) spans.push_back({begin, {begin + view.bytes, name}});
    if (!out.emplace(name, std::move(view)).second) return invalid(name + ": stored in more than one file");
  }
  std::sort(spans.begin(), spans.end());
  for (size_t i = 1; i < spans.size(); i++) {
    if (spans[i].first < spans[i - 1].second.first)
      return invalid(spans[i].second.second + ": its data overlaps " + spans[i - 1].second.second);
  }
  return ok_status();
}

Result<std::string> read_text_file(const std::string& path, size_t bytes_max) {
  std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  const std::string name = path.substr(path.rfind('/') + 1);
  if (!file) return invalid(name + ": no such file, or not readable");
  std::string text;
  char buffer[65536];
  while (const size_t n = std::fread(buffer, 1, sizeof buffer, file.get())) {
    text.append(buffer, n);
    if (text.size() > bytes_max) return invalid(name + ": larger than " + std::to_string(bytes_max) + " bytes");
  }
  return text;
}

Status Checkpoint::add_file(const std::string& path, const std::string& label) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not hold the open up
  struct stat info {};
  if (fd < 0) return invalid(label + ": no such file, or not readable");
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size < 8) {
    ::close(fd);
    return invalid(label + ": shorter than a safetensors header");
  }
  const size_t size = static_cast<size_t>(info.st_size);
  void* map = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  ::close(fd);
  if (map == MAP_FAILED) return invalid(label + ": could not be mapped");
  files_.push_back(std::make_shared<MappedFile>(static_cast<const uint8_t*>(map), size));
  total_bytes_ += size;
  return parse_safetensors(files_.back()->data, size, label, tensors_);
}

void Checkpoint::drop_resident() const {
  for (const auto& file : files_) madvise(const_cast<uint8_t*>(file->data), file->size, MADV_DONTNEED);
}

Result<Checkpoint> Checkpoint::open(const std::string& dir) {
  Checkpoint out;
  if (access((dir + "/model.safetensors.index.json").c_str(), R_OK) != 0) {
    if (Status s = out.add_file(dir + "/model.safetensors", "model.safetensors"); !s.ok()) return s;
    return out;
  }
  Result<std::string> text = read_text_file(dir + "/model.safetensors.index.json", 256u << 20);
  if (!text.ok()) return text.status();
  Result<Json> index = parse_json(text.value());
  const Json* map = index.ok() ? index.value().find("weight_map") : nullptr;
  if (!map || !map->is(Json::Kind::kObject)) return invalid("model.safetensors.index.json: no weight_map");
  std::set<std::string> shards;
  for (const auto& [name, file] : map->fields) {
    if (file.string.empty() || file.string.find('/') != std::string::npos)
      return invalid(name + ": the index names no plain file");
    shards.insert(file.string);
  }
  // Whole shards are read, so a tensor that the index forgot (seen in vendor repacks) is still found.
  for (const std::string& shard : shards) {
    if (Status s = out.add_file(dir + "/" + shard, shard); !s.ok()) return s;
  }
  for (const auto& [name, file] : map->fields) {
    if (!out.tensors_.contains(name)) return invalid(name + ": named by the index but not in " + file.string);
  }
  return out;
}

const TensorView* Checkpoint::find(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

bool Checkpoint::any_under(const std::string& prefix) const {
  const auto found = tensors_.lower_bound(prefix);
  return found != tensors_.end() && found->first.starts_with(prefix);
}

}  // namespace sparrow
