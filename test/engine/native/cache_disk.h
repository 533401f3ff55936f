// A disk tier under test, chains of names, and the bytes that each named page must have.
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "../../../gpu-node/native/backend.h"
#include "../../../gpu-node/native/cache/disk_tier.h"

namespace sparrow::test {

constexpr int64_t kPageBytes = 320;
constexpr size_t kRowBytes = 240;  // of them; the rest are keys

std::vector<PageKey> chain_of(int salt, int pages);
DiskOptions options_of(const std::string& dir, int slots, int model = 1);
std::string slurp(const std::string& path);
void spill(const std::string& path, const std::string& content);

struct Disk {
  /// Ends the program when the folder does not open.
  Disk(const std::string& dir, int slots, int model = 1);

  /// All pages of a chain, written when it returns.
  void put(const std::vector<PageKey>& chain);
  void put_one(const std::vector<PageKey>& chain, size_t p);
  /// Until everything is written.
  void settle();
  /// Reads pages; adds the whole ones to `found`. Says which has other bytes than it must have.
  std::string read(const std::vector<PageKey>& keys, int& found);
  /// All of them, right.
  std::string expect(const std::vector<PageKey>& keys, size_t count);

  std::atomic<int> told{0};
  std::unique_ptr<DiskTier> tier;

 private:
  uint64_t ticket_ = 0;
};

/// DiskIndex against a slow twin.
std::string index_at_random(const std::string&);

}  // namespace sparrow::test
