// Names and checksums against published vectors; the page pool against a slow twin that remembers every page's tokens.
#include <algorithm>
#include <map>
#include <random>

#include "../../../gpu-node/native/cache/checksum.h"
#include "../../../gpu-node/native/cache/page_pool.h"
#include "../../../gpu-node/native/cache/sha256_block.h"
#include "cache_test.h"

namespace sparrow::test {
namespace {

std::string hex(const Digest& digest) {
  std::string out;
  for (const uint8_t byte : digest) {
    out += "0123456789abcdef"[byte >> 4];
    out += "0123456789abcdef"[byte & 15];
  }
  return out;
}

/// FIPS 180-4 examples; a million `a` crosses every block boundary when it comes in odd pieces.
std::string sha256(const std::string&) {
  if (hex(Sha256().finish()) != "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855") return "nothing";
  if (hex(Sha256().add("abc", 3).finish()) != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    return "abc";
  const std::string long_text = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  if (hex(Sha256().add(long_text.data(), long_text.size()).finish()) !=
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1")
    return "two blocks";
  const std::string a(1'000'000, 'a');
  Sha256 sha;
  for (size_t at = 0, n = 1; at < a.size(); at += n, n = n % 191 + 1)
    sha.add(a.data() + at, std::min(n, a.size() - at));
  if (hex(sha.finish()) != "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0") return "a million";
  std::mt19937 random(1);
  for (int i = 0; sha256_ni_runs() && i < 1000; i++) {
    uint8_t data[64];
    uint32_t one[8], two[8];
    for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
    for (int word = 0; word < 8; word++) one[word] = two[word] = random();
    sha256_portable_block(one, data);
    sha256_ni_block(two, data);
    if (!std::equal(one, one + 8, two)) return "the two forms differ";
  }
  return "";
}

std::string xxh64(const std::string&) {
  const std::string pangram = "Nobody inspects the spammish repetition";
  if (checksum("", 0, 0) != 0xEF46DB3751D8E999) return "nothing";
  if (checksum("a", 1, 0) != 0xD24EC4F1A98C6E5B) return "a";
  if (checksum("abc", 3, 0) != 0x44BC2CF5AD770999) return "abc";
  if (checksum(pangram.data(), pangram.size(), 0) != 0xFBCEA83C8A378BF1) return "over 32 bytes";
  for (size_t i = 0; i < pangram.size() * 8; i++) {
    std::string flipped = pangram;
    flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ (1 << i % 8));
    if (checksum(flipped.data(), flipped.size(), 7) == checksum(pangram.data(), pangram.size(), 7)) return "a bit";
  }
  return checksum("abc", 3, 0) == checksum("abc", 3, 1) ? "the seed does not matter" : "";
}

/// Fixed for ever: a disk written by another build, process or machine must be found under these names.
std::string names(const std::string&) {
  std::vector<int32_t> tokens(130, 7);
  KeyChain a("salt"), b("salt"), other("tlas");
  if (a.at(1, tokens) != b.at(1, tokens) || a.at(0, tokens) == a.at(1, tokens)) return "equal tokens, unequal names";
  if (a.at(0, tokens) == other.at(0, tokens)) return "the salt does not matter";
  tokens[63] = 8;
  KeyChain forked("salt");
  if (forked.at(1, tokens) == a.at(1, tokens)) return "an earlier page's token does not matter";
  const std::string first = hex(KeyChain("salt").at(0, std::vector<int32_t>(64, 7)));
  return first == "010a312ebe8dbeac7a4536a57ac07929b1342e8026ce37c4169559f9b31f70fa"
             ? ""
             : "the first page's name is now " + first;
}

constexpr int kPages = 24, kSequences = 6;

/// A sequence as the engine treats one: shared pages, then its own, each published when full.
struct Twin {
  std::string salt;
  std::vector<int32_t> tokens, pages;
  KeyChain keys{""};
};

/// What each page holds, by what was written to it; a shared page must hold what the sharer would have computed.
using Contents = std::map<int32_t, std::pair<std::string, std::vector<int32_t>>>;

std::string admit(PagePool& pool, Contents& contents, Twin& t) {
  t.pages = pool.share(t.keys, t.tokens);
  if (!t.pages.empty() && t.pages.size() * SP_PAGE_TOKENS >= t.tokens.size()) return "no token was left to compute";
  for (size_t p = 0; p < t.pages.size(); p++) {
    const std::vector<int32_t> until(t.tokens.begin(), t.tokens.begin() + static_cast<int>(p + 1) * SP_PAGE_TOKENS);
    if (contents[t.pages[p]] != std::pair(t.salt, until)) return "a page of other tokens was shared";
  }
  while ((t.pages.size() + 1) * SP_PAGE_TOKENS <= t.tokens.size()) {
    const int32_t page = pool.take();
    if (page < 0) return "";
    const size_t p = t.pages.size();
    const auto end = t.tokens.begin() + static_cast<int>(p + 1) * SP_PAGE_TOKENS;
    contents[page] = {t.salt, {t.tokens.begin(), end}};
    t.pages.push_back(page);
    t.pages[p] = pool.publish(page, t.keys.at(p, t.tokens), p ? t.pages[p - 1] : -1, &*end - SP_PAGE_TOKENS);
    if (contents[t.pages[p]] != contents[page]) return "a page was swapped for another's content";
  }
  return "";
}

std::string pool_at_random(const std::string&) {
  std::mt19937 random(5);
  const auto pick = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  PagePool pool(kPages, true);
  Contents contents;
  std::vector<Twin> held;
  int64_t shared = 0;
  for (int round = 0; round < 20'000; round++) {
    if (static_cast<int>(held.size()) < kSequences && pick(2)) {
      Twin t;
      t.salt = pick(3) ? "x" : "y";
      t.keys = KeyChain(t.salt);
      const int fork = pick(5) * SP_PAGE_TOKENS / 2, branch = pick(3);
      for (int i = 0; i < 40 + pick(300); i++) t.tokens.push_back(i < fork ? 1 : branch);
      const std::string wrong = admit(pool, contents, t);
      if (!wrong.empty()) return wrong;
      shared += static_cast<int64_t>(t.pages.size());
      held.push_back(std::move(t));
    } else if (!held.empty()) {
      const size_t i = static_cast<size_t>(pick(static_cast<int>(held.size())));
      pool.release_all(held[i].pages);
      held.erase(held.begin() + static_cast<int>(i));
    }
    if (pick(4) == 0 && pool.first_fresh()) pool.told();
    if (const std::string wrong = pool.check_integrity(); !wrong.empty()) return wrong;
  }
  for (Twin& t : held) pool.release_all(t.pages);
  if (pool.available() != kPages) return "pages are lost";
  std::vector<int32_t> all;
  for (int i = 0; i < kPages; i++) all.push_back(pool.take());
  return pool.take() != -1 || std::count(all.begin(), all.end(), -1) || shared < 1000 ? "take() miscounts" : "";
}

/// One chain of four, its root used again and again: its last page goes first all the same.
std::string leaf_first(const std::string&) {
  PagePool pool(4);
  std::vector<int32_t> tokens(4 * SP_PAGE_TOKENS + 1, 3), held;
  KeyChain keys("s");
  for (size_t p = 0; p < 4; p++) {
    held.push_back(pool.take());
    pool.publish(held[p], keys.at(p, tokens), p ? held[p - 1] : -1, tokens.data());
  }
  const int32_t last = held[3];
  for (const int32_t page : held) pool.release(page);  // in the wrong order
  if (pool.take() != last) return "not the last page was evicted";
  std::vector<int32_t> found = pool.share(keys, tokens);
  return found.size() == 3 && pool.evictions() == 1 ? "" : "the chain before it is not found";
}

/// Two sequences that compute the same pages end up with the same ones, and the second's go on being cached.
std::string twins(const std::string&) {
  PagePool pool(8);
  std::vector<int32_t> tokens(3 * SP_PAGE_TOKENS + 1, 3);
  KeyChain keys("s");
  std::vector<int32_t> a, b;
  for (size_t p = 0; p < 3; p++) {
    const int32_t* at = tokens.data() + p * SP_PAGE_TOKENS;
    if (p < 2) a.push_back(pool.publish(pool.take(), keys.at(p, tokens), p ? a[p - 1] : -1, at));
    b.push_back(pool.publish(pool.take(), keys.at(p, tokens), p ? b[p - 1] : -1, at));
  }
  if (a[0] != b[0] || a[1] != b[1]) return "the same content lies in two pages";
  pool.release_all(a);
  pool.release_all(b);
  const size_t found = pool.share(keys, tokens).size();
  return found == 3 ? pool.check_integrity() : "the second's own page was not cached";
}

}  // namespace

std::vector<CacheCase> pool_cases() {
  return {{"sha256", sha256},         {"xxh64", xxh64}, {"names", names}, {"pool_at_random", pool_at_random},
          {"leaf_first", leaf_first}, {"twins", twins}};
}

}  // namespace sparrow::test
