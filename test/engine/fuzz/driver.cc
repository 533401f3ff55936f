// libFuzzer's part for compilers without it: replays files, then mutates them for -runs=N rounds or -max_total_time=S
// seconds under the sanitizers. Same seed, same inputs. The input that ends it is kept as `crash` in the current
// folder.
#include <sanitizer/common_interface_defs.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t size_max);
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t size_max, unsigned choice)
    __attribute__((weak));
// Bounds on memory: one allocation, and all of the program. Over either is a failure.
extern "C" const char* __asan_default_options() {
  return "handle_abort=1:allocator_may_return_null=0:max_allocation_size_mb=256:hard_rss_limit_mb=1024";
}

namespace {

using Bytes = std::vector<uint8_t>;
constexpr size_t kSizeMax = 64 << 10, kWorstSeconds = 60;

std::mt19937 random_bits;
std::vector<std::string> words;
const Bytes* current = nullptr;

size_t below(size_t n) {
  return n ? random_bits() % n : 0;
}

void keep_input() {
  if (!current) return;
  std::ofstream("crash", std::ios::binary)
      .write(reinterpret_cast<const char*>(current->data()), static_cast<std::streamsize>(current->size()));
  std::fprintf(stderr, "fuzz: the input is in ./crash\n");
}

void too_slow(int) {
  constexpr char kText[] = "fuzz: an input takes too long\n";
  if (write(2, kText, sizeof kText - 1) < 0) _exit(1);
  std::abort();
}

void run_one(const Bytes& input) {
  // A copy of exact size, so that a byte read past the end is seen.
  const Bytes exact(input.begin(), input.end());
  current = &exact;
  alarm(kWorstSeconds);
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
  alarm(0);
  current = nullptr;
}

/// Puts `piece` at `at`, over what is there or between.
void put(Bytes& bytes, size_t at, const Bytes& piece, bool over) {
  if (over) bytes.erase(bytes.begin() + at, bytes.begin() + std::min(bytes.size(), at + piece.size()));
  bytes.insert(bytes.begin() + at, piece.begin(), piece.end());
}

void mutate_once(Bytes& bytes) {
  const size_t at = below(bytes.size() + 1), length = 1 + below(16);
  switch (below(6)) {
    case 0:
      if (at < bytes.size()) bytes[at] ^= static_cast<uint8_t>(1u << below(8));
      break;
    case 1:
      if (at < bytes.size()) bytes[at] = static_cast<uint8_t>(random_bits());
      break;
    case 2:
      bytes.erase(bytes.begin() + at, bytes.begin() + std::min(bytes.size(), at + length));
      break;
    case 3:
      if (!words.empty()) {
        const std::string& word = words[below(words.size())];
        put(bytes, at, Bytes(word.begin(), word.end()), below(2));
      }
      break;
    case 4: {
      const std::string number = std::to_string(random_bits() >> below(32));
      put(bytes, at, Bytes(number.begin(), number.end()), below(2));
      break;
    }
    default: {
      const size_t from = below(bytes.size()), end = std::min(bytes.size(), from + length * (1 + below(8)));
      put(bytes, at, Bytes(bytes.begin() + from, bytes.begin() + end), below(2));
    }
  }
}

/// Reads words.dict: a quoted word a line.
void read_words(const std::string& path) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.size() < 2 || line.front() != '"') continue;
    std::string word;
    for (size_t i = 1; i + 1 < line.size(); i++) word += line[i] == '\\' ? line[++i] : line[i];
    words.push_back(word);
  }
}

void read_inputs(const std::filesystem::path& path, std::vector<std::filesystem::path>& files) {
  if (!std::filesystem::is_directory(path)) return files.push_back(path);
  for (const auto& entry : std::filesystem::directory_iterator(path)) files.push_back(entry.path());
}

Bytes content(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  const std::string bytes = text.str();
  return {bytes.begin(), bytes.end()};
}

Bytes mutated(const std::vector<Bytes>& inputs) {
  Bytes bytes = inputs[below(inputs.size())];
  const size_t size = std::min(bytes.size(), kSizeMax);
  bytes.resize(kSizeMax);
  const size_t now = LLVMFuzzerCustomMutator ? LLVMFuzzerCustomMutator(bytes.data(), size, kSizeMax, random_bits())
                                             : LLVMFuzzerMutate(bytes.data(), size, kSizeMax);
  bytes.resize(now);
  return bytes;
}

int main_of(int count, char** arguments) {
  std::vector<std::filesystem::path> files;
  unsigned long runs = ~0ul, seconds = 1ul << 30;
  for (int i = 1; i < count; i++) {
    const std::string argument = arguments[i];
    const std::string value = argument.substr(argument.find('=') + 1);
    if (argument.starts_with("-runs="))
      runs = std::stoul(value);
    else if (argument.starts_with("-max_total_time="))
      seconds = std::stoul(value);
    else if (argument.starts_with("-seed="))
      random_bits.seed(static_cast<unsigned>(std::stoul(value)));
    else if (argument.starts_with("-dict="))
      read_words(value);
    else if (argument.front() != '-')
      read_inputs(argument, files);
  }
  std::sort(files.begin(), files.end());
  std::vector<Bytes> inputs;
  for (const auto& file : files) run_one(inputs.emplace_back(content(file)));
  if (inputs.empty()) return std::fprintf(stderr, "fuzz: no input\n"), 2;
  const auto start = std::chrono::steady_clock::now();
  unsigned long done = 0;
  while (done < runs && std::chrono::steady_clock::now() - start < std::chrono::seconds(seconds)) {
    run_one(mutated(inputs));
    done++;
  }
  std::fprintf(stderr, "fuzz: %zu files replayed, %lu mutations\n", inputs.size(), done);
  return 0;
}

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t size_max) {
  Bytes bytes(data, data + size);
  for (size_t i = 0, n = 1 + below(4); i < n; i++) mutate_once(bytes);
  const size_t now = std::min(bytes.size(), size_max);
  std::copy_n(bytes.begin(), now, data);
  return now;
}

int main(int count, char** arguments) {
  __sanitizer_set_death_callback(keep_input);
  std::signal(SIGALRM, too_slow);
  return main_of(count, arguments);
}
