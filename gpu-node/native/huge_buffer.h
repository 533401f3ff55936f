// Anonymous memory on huge pages where the system has them: 10-20% more bandwidth for weights and KV pages. Zeroed, and
// resident only where touched.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace sparrow {

class HugeBuffer {
 public:
  HugeBuffer() = default;
  /// data() is null when the system refuses or `size` is 0.
  explicit HugeBuffer(size_t size) : size_(size) {
    if (size == 0) return;
    void* at =
        mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return;
    map_ = static_cast<uint8_t*>(at);
    data_ = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(at) + kHugePage - 1) & ~uintptr_t{kHugePage - 1});
    madvise(data_, size, MADV_HUGEPAGE);
  }
  HugeBuffer(HugeBuffer&& other) noexcept { *this = std::move(other); }
  HugeBuffer& operator=(HugeBuffer&& other) noexcept {
    std::swap(map_, other.map_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~HugeBuffer() {
    if (map_) munmap(map_, size_ + kHugePage);
  }

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  static constexpr size_t kHugePage = size_t{2} << 20;
  uint8_t *map_ = nullptr, *data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace sparrow
