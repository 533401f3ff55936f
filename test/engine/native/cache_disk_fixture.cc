// Pages whose bytes follow from their names, and DiskIndex against a list that is searched from end to end.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>

#include "cache_disk.h"

namespace sparrow::test {
namespace {

std::vector<uint8_t> bytes_of(const PageKey& key) {
  std::mt19937 random(static_cast<unsigned>(key[0] + 256 * key[1] + 65536 * key[2]));
  std::vector<uint8_t> out(kPageBytes);
  for (uint8_t& byte : out) byte = static_cast<uint8_t>(random());
  return out;
}

struct Known {
  PageKey key, parent;
  uint64_t used;
  int64_t slot;
};

/// The page to go for one that follows `parent`: used longest ago of those that no other follows.
const Known* oldest_leaf(const std::vector<Known>& all, const PageKey& parent) {
  const Known* out = nullptr;
  for (const Known& k : all) {
    if (k.key == parent) continue;
    const bool leaf = std::none_of(all.begin(), all.end(), [&](const Known& other) { return other.parent == k.key; });
    if (leaf && (!out || k.used < out->used)) out = &k;
  }
  return out;
}

}  // namespace

std::vector<PageKey> chain_of(int salt, int pages) {
  const std::vector<int32_t> tokens(static_cast<size_t>(pages) * SP_PAGE_TOKENS, 5);
  KeyChain keys(std::to_string(salt));
  std::vector<PageKey> out;
  for (size_t p = 0; p < static_cast<size_t>(pages); p++) out.push_back(keys.at(p, tokens));
  return out;
}

DiskOptions options_of(const std::string& dir, int slots, int model) {
  Digest digest{};
  digest[0] = static_cast<uint8_t>(model);
  return {dir, 128 + slots * (kPageBytes + 128), digest, kPageBytes};
}

std::string slurp(const std::string& path) {
  std::ostringstream out;
  out << std::ifstream(path, std::ios::binary).rdbuf();
  return out.str();
}

void spill(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
}

Disk::Disk(const std::string& dir, int slots, int model) {
  auto file = DiskFile::open(options_of(dir, slots, model));
  if (!file.ok()) {
    std::fprintf(stderr, "%s\n", file.status().message.c_str());
    std::exit(2);
  }
  tier = std::make_unique<DiskTier>(std::move(file.value()), [this] { told++; });
}

void Disk::put_one(const std::vector<PageKey>& chain, size_t p) {
  const std::vector<uint8_t> page = bytes_of(chain[p]);
  const std::span<const uint8_t> whole(page);
  while (!tier->put(chain[p], p ? std::optional(chain[p - 1]) : std::nullopt, whole.first(kRowBytes),
                    whole.subspan(kRowBytes)))
    std::this_thread::sleep_for(std::chrono::microseconds(100));
}

void Disk::put(const std::vector<PageKey>& chain) {
  for (size_t p = 0; p < chain.size(); p++) put_one(chain, p);
  settle();
}

void Disk::settle() {
  while (tier->stats().pending > 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
}

std::string Disk::read(const std::vector<PageKey>& keys, int& found) {
  std::vector<std::vector<uint8_t>> pages(keys.size(), std::vector<uint8_t>(kPageBytes));
  std::vector<DiskTier::Wanted> wanted;
  for (size_t i = 0; i < keys.size(); i++) {
    const std::span<uint8_t> whole(pages[i]);
    wanted.push_back({keys[i], whole.first(kRowBytes), whole.subspan(kRowBytes)});
  }
  tier->get(++ticket_, std::move(wanted));
  std::vector<DiskTier::Done> done;
  while ((done = tier->take_done()).empty()) std::this_thread::sleep_for(std::chrono::microseconds(50));
  if (done.size() != 1 || done[0].ticket != ticket_) return "another read was told of";
  for (size_t i = 0; i < done[0].whole; i++)
    if (pages[i] != bytes_of(keys[i])) return "page " + std::to_string(i) + " has other bytes";
  found += static_cast<int>(done[0].whole);
  return "";
}

std::string Disk::expect(const std::vector<PageKey>& keys, size_t count) {
  int found = 0;
  const std::string wrong = read(keys, found);
  if (!wrong.empty()) return wrong;
  return static_cast<size_t>(found) == count ? "" : std::to_string(found) + " pages were read";
}

std::string index_at_random(const std::string&) {
  std::mt19937 random(3);
  constexpr int64_t kSlots = 12;
  DiskIndex index(kSlots);
  std::vector<Known> known;
  uint64_t now = 1'000'000;
  std::vector<std::vector<PageKey>> chains;
  for (int i = 0; i < 6; i++) chains.push_back(chain_of(i, 6));
  int evicted = 0;
  for (int round = 0; round < 20'000; round++) {
    const std::vector<PageKey>& chain = chains[random() % chains.size()];
    const size_t p = random() % chain.size();
    const PageKey parent = p ? chain[p - 1] : PageKey{};
    const auto at = std::find_if(known.begin(), known.end(), [&](const Known& k) { return k.key == chain[p]; });
    if ((at == known.end()) != (index.find(chain[p]) < 0)) return "a page is known to one of the two only";
    if (at != known.end() && random() % 8 == 0) {
      index.erase(at->slot);
      known.erase(at);
    } else if (at != known.end()) {
      index.touch(at->slot);
      at->used = now++;
    } else {
      const bool full = static_cast<int64_t>(known.size()) == kSlots;
      const Known* leaf = full ? oldest_leaf(known, parent) : nullptr;
      const DiskIndex::Slot slot = index.take(parent);
      if (slot.evicted != (leaf != nullptr)) return "something else was evicted than should be";
      if (full && !leaf) {
        if (slot.at >= 0) return "a page's own parent was evicted for it";
        continue;
      }
      if (leaf && (slot.at != leaf->slot || index.find(leaf->key) >= 0)) return "not the oldest leaf was evicted";
      evicted += slot.evicted;
      if (leaf) known.erase(known.begin() + (leaf - known.data()));
      if (!index.insert(slot.at, chain[p], parent, index.next_stamp())) return "a new page has a slot already";
      known.push_back({chain[p], parent, now++, slot.at});
    }
    if (index.used() != static_cast<int64_t>(known.size())) return "the pages are miscounted";
  }
  return evicted > 1000 ? "" : "hardly anything was evicted";
}

}  // namespace sparrow::test
