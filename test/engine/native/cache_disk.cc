// The disk tier: what it keeps over a restart, and what damage, other models, full disks and kills do to it: a page is
// right or absent.
#include "cache_disk.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "cache_test.h"

namespace {
/// Bytes that every disk has free.
std::atomic<uint64_t> free_bytes{uint64_t{1} << 40};
}  // namespace

/// Instead of libc's.
extern "C" int fstatvfs(int, struct statvfs* disk) noexcept {
  *disk = {};
  disk->f_frsize = 1;
  disk->f_bavail = free_bytes;
  return 0;
}

namespace sparrow::test {
namespace {

namespace fs = std::filesystem;

std::string restart(const std::string& dir) {
  const std::vector<PageKey> chain = chain_of(1, 40);
  for (const bool fresh : {true, false}) {
    Disk disk(dir, 100);
    if (fresh && disk.tier->leading(chain) != 0) return "an empty folder has pages";
    if (fresh) disk.put(chain);
    if (disk.tier->leading(chain) != 40) return "pages are missing";
    if (disk.tier->leading(chain_of(2, 40)) != 0) return "pages of another salt are there";
    if (const std::string wrong = disk.expect(chain, 40); !wrong.empty()) return wrong;
    const DiskStats s = disk.tier->stats();
    if (s.writes != (fresh ? 40 : 0) || s.reads != 40 || s.pages != 40 || s.corrupt || s.evictions || s.errors)
      return "the counters are wrong";
  }
  if ((fs::status(dir).permissions() & fs::perms::all) != fs::perms::owner_all)
    return "others may look into the folder";
  return "";
}

/// Destroying the tier writes what it took.
std::string last_writes(const std::string& dir) {
  const std::vector<PageKey> chain = chain_of(1, 60);
  {
    Disk disk(dir, 100);
    for (size_t p = 0; p < chain.size(); p++) disk.put_one(chain, p);
  }
  return Disk(dir, 100).expect(chain, 60);
}

std::string other_model(const std::string& dir) {
  const std::vector<PageKey> chain = chain_of(1, 10);
  Disk(dir, 100).put(chain);
  if (Disk(dir, 100, 2).tier->leading(chain) != 0) return "another model finds the pages";
  Disk(dir, 100, 2).put(chain_of(3, 1));
  Disk back(dir, 100);
  return back.tier->leading(chain) == 0 && back.tier->leading(chain_of(3, 1)) == 0 ? "" : "the wrong pages survived";
}

std::string one_process(const std::string& dir) {
  const Disk first(dir, 100);
  const auto second = DiskFile::open(options_of(dir, 100));
  if (second.ok()) return "two use one folder";
  return second.status().message.find("another process uses it") != std::string::npos ? "" : second.status().message;
}

std::string unusable(const std::string& dir) {
  std::ofstream(dir) << "a file";
  const auto file = DiskFile::open(options_of(dir, 100));
  if (file.ok() || file.status().message.find("cacheDir") == std::string::npos) return "a file passes for a folder";
  const auto small = DiskFile::open({dir + "x", 100, {}, kPageBytes});
  return !small.ok() && small.status().message.find("cacheBytes") != std::string::npos ? "" : "no room for a page";
}

/// Many chains through a small folder: never more bytes than allowed, the last chain whole, the one that is used kept.
std::string bounded(const std::string& dir) {
  constexpr int kSlots = 30;
  Disk disk(dir, kSlots);
  const std::vector<PageKey> kept = chain_of(1, 5);
  disk.put(kept);
  for (int i = 2; i < 40; i++) {
    disk.put(chain_of(i, 8));
    if (!disk.tier->touch(kept).empty()) return "a page that is used was evicted";
    if (disk.tier->leading(chain_of(i, 8)) != 8) return "the newest chain is not whole";
  }
  if (const std::string wrong = disk.expect(chain_of(39, 8), 8); !wrong.empty()) return wrong;
  const uintmax_t bytes = fs::file_size(dir + "/index") + fs::file_size(dir + "/pages");
  if (bytes > static_cast<uintmax_t>(options_of(dir, kSlots).bytes)) return "more bytes than allowed";
  const DiskStats s = disk.tier->stats();
  if (s.evictions != 5 + 38 * 8 - kSlots || s.pages != kSlots) return "evictions are miscounted";
  return disk.tier->touch(chain_of(2, 3)).size() == 3 ? "" : "the oldest chain is still there";
}

/// A chain longer than the disk keeps its beginning instead of evicting it for its end.
std::string too_long(const std::string& dir) {
  Disk disk(dir, 10);
  const std::vector<PageKey> chain = chain_of(1, 25);
  disk.put(chain);
  if (disk.tier->leading(chain) != 10) return "its beginning is gone";
  return disk.tier->stats().evictions == 0 ? "" : "it evicts itself";
}

/// A chain that grows again after others have filled the disk takes their places, though its own end was used longest
/// ago.
std::string grows_late(const std::string& dir) {
  Disk disk(dir, 10);
  const std::vector<PageKey> chain = chain_of(1, 6);
  for (size_t p = 0; p < 2; p++) disk.put_one(chain, p);
  disk.put(chain_of(2, 8));
  for (size_t p = 2; p < 6; p++) disk.put_one(chain, p);
  disk.settle();
  if (disk.tier->leading(chain_of(2, 8)) != 4) return "the pages of the others are not what is left";
  return disk.expect(chain, 6);
}

/// The order of eviction survives a restart, and a smaller budget.
std::string smaller(const std::string& dir) {
  {
    Disk disk(dir, 30);
    for (int i = 1; i <= 3; i++) disk.put(chain_of(i, 10));
    disk.tier->touch(chain_of(1, 10));
    disk.settle();
  }
  {
    Disk disk(dir, 30);
    disk.put(chain_of(4, 10));
    if (disk.tier->leading(chain_of(1, 10)) != 10 || disk.tier->leading(chain_of(2, 10)) != 0)
      return "another chain than the one used longest ago was evicted";
  }
  Disk disk(dir, 12);
  const uintmax_t bytes = fs::file_size(dir + "/index") + fs::file_size(dir + "/pages");
  if (bytes > static_cast<uintmax_t>(options_of(dir, 12).bytes)) return "the folder was not cut";
  disk.put(chain_of(5, 6));
  return disk.expect(chain_of(5, 6), 6);
}

/// A page whose predecessor is not on disk could never be found, so it is not written.
std::string orphan(const std::string& dir) {
  Disk disk(dir, 10);
  const std::vector<PageKey> chain = chain_of(1, 3);
  disk.put_one(chain, 2);
  disk.settle();
  return disk.tier->stats().writes == 0 ? "" : "it was written";
}

/// One bit of every byte of the index and of every fifth byte of the pages in turn.
std::string bit_flips(const std::string& dir) {
  const std::vector<PageKey> chain = chain_of(1, 5);
  Disk(dir, 20).put(chain);
  for (const char* name : {"/index", "/pages"}) {
    const std::string path = dir + name, whole = slurp(path);
    const bool is_page = std::string(name) == "/pages";
    int misses = 0;
    for (size_t i = 0; i < whole.size(); i += is_page ? 5 : 1) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << i % 8));
      const std::string others = slurp(dir + (is_page ? "/index" : "/pages"));
      spill(path, damaged);
      int found = 0;
      {
        Disk disk(dir, 20);
        for (const PageKey& key : chain) {
          if (!disk.read({key}, found).empty())
            return std::string(name) + " byte " + std::to_string(i) + ": a wrong page";
        }
        misses += 5 - found;
        const bool of_header = !is_page && i < 128;
        if (is_page && found != 4) return "damage in a page is not noticed";
        if (disk.tier->stats().corrupt != (of_header ? 0 : 5 - found)) return "corrupt pages are miscounted";
      }
      spill(path, whole);
      spill(dir + (is_page ? "/index" : "/pages"), others);
    }
    if (misses == 0) return std::string(name) + ": nothing was ever missed";
  }
  return "";
}

std::string truncated(const std::string& dir) {
  const std::vector<PageKey> chain = chain_of(1, 5);
  Disk(dir, 20).put(chain);
  const std::string index = slurp(dir + "/index"), pages = slurp(dir + "/pages");
  for (size_t cut = 0; cut < std::max(index.size(), pages.size()); cut += 13) {
    for (const bool of_index : {true, false}) {
      spill(dir + "/index", of_index ? index.substr(0, cut) : index);
      spill(dir + "/pages", of_index ? pages : pages.substr(0, cut));
      Disk disk(dir, 20);
      int found = 0;
      for (const PageKey& key : chain)
        if (const std::string wrong = disk.read({key}, found); !wrong.empty()) return wrong;
      if (cut < std::min(index.size(), pages.size()) / 2 && found == 5) return "a cut file gives every page";
      disk.put(chain);
      if (const std::string wrong = disk.expect(chain, 5); !wrong.empty()) return "written again: " + wrong;
    }
  }
  return "";
}

/// A process killed at any moment of its writing leaves right pages, none torn, and some at all.
std::string killed(const std::string& dir) {
  size_t found = 0;
  for (int round = 0; round < 12; round++) {
    int begun[2];
    if (pipe(begun) != 0) return "no pipe";
    const pid_t child = fork();
    if (child == 0) {
      Disk disk(dir, 300);
      for (int i = 0;; i++) {
        disk.put(chain_of(round * 1000 + i, 7));
        if (i == 1 && write(begun[1], "x", 1) != 1) std::_Exit(1);
      }
    }
    char byte;
    const bool alive = read(begun[0], &byte, 1) == 1;
    std::this_thread::sleep_for(std::chrono::milliseconds(3 * round));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    close(begun[0]), close(begun[1]);
    if (!alive) return "the writer does not write";
    Disk disk(dir, 300);
    for (int i = 0; i < 400; i++) {
      const std::vector<PageKey> chain = chain_of(round * 1000 + i, 7);
      const size_t n = disk.tier->leading(chain);
      if (n == 0) continue;
      found += n;
      if (const std::string wrong = disk.expect({chain.begin(), chain.begin() + static_cast<int>(n)}, n);
          !wrong.empty())
        return wrong;
    }
    if (disk.tier->stats().corrupt != 0) return "a torn page was left behind";
  }
  return found > 100 ? "" : "hardly a page was found";
}

/// A disk that is full: pages are not kept, and nothing else happens.
std::string full_disk(const std::string& dir) {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {10 * kPageBytes, 10 * kPageBytes};
    setrlimit(RLIMIT_FSIZE, &limit);
    Disk disk(dir, 60);
    const std::vector<PageKey> chain = chain_of(1, 40);
    disk.put(chain);
    const DiskStats s = disk.tier->stats();
    const bool right = s.writes == 10 && s.errors > 0 && disk.expect({chain.begin(), chain.begin() + 10}, 10).empty();
    std::_Exit(right && disk.tier->leading(chain) == 10 ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "" : "it is not taken in stride";
}

/// The last 64 MiB are the journal's: without more the tier goes on by eviction.
std::string leaves_room(const std::string& dir) {
  constexpr uint64_t kJournal = uint64_t{64} << 20;
  Disk disk(dir, 30);
  disk.put(chain_of(1, 5));
  free_bytes = kJournal + kPageBytes - 1;
  disk.put(chain_of(2, 5));
  const uintmax_t bytes = fs::file_size(dir + "/pages");
  const DiskStats full = disk.tier->stats();
  free_bytes = kJournal + kPageBytes;
  disk.put(chain_of(3, 5));
  const DiskStats roomy = disk.tier->stats();
  free_bytes = uint64_t{1} << 40;
  if (bytes != 5 * kPageBytes || full.pages != 5 || full.evictions != 5) return "it grows";
  if (disk.tier->leading(chain_of(2, 5)) != 5) return "the newest chain is not kept";
  return roomy.pages == 10 && roomy.evictions == 5 ? "" : "it does not grow again";
}

/// put() never waits: it refuses while the disk is behind, and says when there is room again.
std::string behind(const std::string& dir) {
  constexpr int64_t kLarge = int64_t{32} << 20;  // two of them fill the queue
  std::atomic<int> told{0};
  std::mutex held;  // stops the tier's thread in its call
  auto file = DiskFile::open({dir, 8 * kLarge, {}, kLarge});
  if (!file.ok()) return file.status().message;
  DiskTier tier(std::move(file.value()), [&] {
    const std::lock_guard lock(held);
    told++;
  });
  const std::vector<uint8_t> page(static_cast<size_t>(kLarge), 7);
  const std::vector<PageKey> chain = chain_of(1, 4);
  const auto put = [&](size_t p) {
    return tier.put(chain[p], p ? std::optional(chain[p - 1]) : std::nullopt, page, {});
  };
  const auto until = [](auto&& holds) {
    for (int i = 0; i < 60'000; i++, std::this_thread::sleep_for(std::chrono::milliseconds(1)))
      if (holds()) return true;
    return false;
  };
  {
    const std::lock_guard lock(held);
    tier.get(1, {});
    if (!until([&] { return !tier.take_done().empty(); })) return "a read never ends";
    if (!put(0) || !put(1)) return "the queue has no room";
    if (put(2)) return "the queue has no end";
  }
  if (!until([&] { return told == 2; })) return "it never says that there is room";
  if (!put(2) || !until([&] { return tier.stats().pending == 0; })) return "the page is not taken";
  return tier.leading(chain) == 3 ? "" : "a page was dropped";
}

}  // namespace

std::vector<CacheCase> disk_cases() {
  return {{"index_at_random", index_at_random},
          {"restart", restart},
          {"last_writes", last_writes},
          {"other_model", other_model},
          {"one_process", one_process},
          {"unusable", unusable},
          {"bounded", bounded},
          {"too_long", too_long},
          {"grows_late", grows_late},
          {"smaller", smaller},
          {"orphan", orphan},
          {"bit_flips", bit_flips},
          {"truncated", truncated},
          {"killed", killed},
          {"full_disk", full_disk},
          {"leaves_room", leaves_room},
          {"behind", behind}};
}

}  // namespace sparrow::test
