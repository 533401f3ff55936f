// The two files of the disk tier: `index` (a header, a record a slot) and `pages` (a page a slot). Nothing read is
// trusted: a record or page that is torn, damaged or of another model is as good as absent. One thread uses it.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "../status.h"
#include "page_key.h"

namespace sparrow {

/// A descriptor, closed with its owner.
class FileHandle {
 public:
  FileHandle() = default;
  explicit FileHandle(int descriptor) : descriptor_(descriptor) {}
  FileHandle(FileHandle&& other) noexcept { *this = std::move(other); }
  FileHandle& operator=(FileHandle&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~FileHandle();
  int get() const { return descriptor_; }

 private:
  int descriptor_ = -1;
};

struct DiskOptions {
  std::string dir;
  int64_t bytes = 0;  // of both files together, at most
  Digest model{};     // whose pages: others are worthless
  int64_t page_bytes = 0;
};

class DiskFile {
 public:
  /// Takes the folder for this process. A folder of another model is emptied, a larger one cut to `bytes`. Errors:
  /// bad_argument when the folder cannot be used, is in use, or has no room for a page.
  static Result<DiskFile> open(const DiskOptions& options);

  int64_t slots() const { return slots_; }
  int64_t page_bytes() const { return page_bytes_; }
  /// Whether the disk has more than what it must keep for others: the node's journal lies on it too.
  bool may_grow() const;

  struct Found {
    int64_t slot;
    PageKey key, parent;
    uint64_t stamp;
  };
  /// Every slot with a sound record; returns how many have a damaged one.
  int64_t scan(const std::function<void(const Found&)>& found) const;

  /// False when the disk refuses; the slot is empty then.
  bool write(const Found& at, const uint8_t* page);
  /// False unless the slot holds this very page, whole.
  bool read(int64_t slot, const PageKey& key, uint8_t* page) const;
  void stamp(int64_t slot, uint64_t stamp);
  void clear(int64_t slot);

 private:
  Status start(const DiskOptions& options);

  FileHandle lock_, index_, pages_;
  int64_t slots_ = 0, page_bytes_ = 0;
  uint64_t seed_ = 0;  // of every checksum: the model's
};

}  // namespace sparrow
