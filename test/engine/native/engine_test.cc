// engine_test FOLDER-OF-A-CHECKPOINT [ISA]: the whole engine without Node, under callers on several threads: shared
// prefixes, in memory and on disk, cancellation, pages that run out, an engine that dies while it works. For the thread
// sanitizer above all. One line each; exit code 1 on failure.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "recorder.h"

namespace sparrow::test {
namespace {

constexpr int kThreads[] = {1, 2, 4};
constexpr int kCallers = 4, kEach = 5;

struct Subject {
  std::string dir, isa;
  int threads = 1;
  std::string cache = "";  // folder of the disk tier

  EngineOptions options(int kv_pages = 0) const {
    return {.model_dir = dir,
            .isa = isa,
            .threads = threads,
            .kv_pages = kv_pages,
            .cache_dir = cache,
            .cache_bytes = int64_t{64} << 20,
            .step_tokens = 48,
            .token_bytes = {}};
  }
};

/// Every third prompt begins like the ones before it, in whole pages.
Request request_of(int caller, int i) {
  Request r;
  r.id = static_cast<uint64_t>(caller * 100 + i + 1);
  const int length = 20 + 23 * ((caller + i) % kEach);
  for (int t = 0; t < length; t++) r.tokens.push_back(2 + (t * 7 + (t < 70 ? 0 : caller * 5 + i)) % 90);
  r.salt = i % 3 ? "shared" : "own " + std::to_string(caller);
  r.max_tokens = 6 + i;
  r.sampling = {i % 2 ? 1.0 : 0.0, 0.9, static_cast<uint64_t>(i)};
  return r;
}

bool cancelled(int i) {
  return i == kEach - 1;
}

/// What each request gives when nothing else runs.
std::map<uint64_t, std::vector<int32_t>> alone(const Subject& subject) {
  Recorder recorder;
  const auto engine = recorder.open(Subject{subject.dir, subject.isa, 1}.options());
  std::map<uint64_t, std::vector<int32_t>> out;
  for (int caller = 0; caller < kCallers; caller++) {
    for (int i = 0; i < kEach; i++) {
      Request r = request_of(caller, i);
      const uint64_t id = r.id;
      r.salt = std::to_string(id);
      out[id] = recorder.run(*engine, std::move(r)).tokens;
    }
  }
  return out;
}

std::string idle(Engine& engine) {
  const std::string wrong = engine.check_integrity();
  if (!wrong.empty()) return wrong;
  const EngineStats s = engine.stats();
  return s.running || s.waiting || s.pages_used ? "pages or sequences are left over" : "";
}

/// Callers on threads of their own, others that look on; each request gives what it gives alone.
std::string together(const Subject& subject, int kv_pages) {
  const auto expected = alone(subject);
  Recorder recorder;
  const auto engine = recorder.open(subject.options(kv_pages));
  std::atomic<bool> over{false};
  std::thread watcher([&] {
    while (!over) {
      const EngineStats s = engine->stats();
      if (s.pages_used > s.pages || !engine->check_integrity().empty()) recorder.fail("the pages do not add up");
      std::this_thread::yield();
    }
  });
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; caller++) {
    callers.emplace_back([&, caller] {
      for (int i = 0; i < kEach; i++) {
        Request r = request_of(caller, i);
        if (cancelled(i)) r.max_tokens = 300;
        recorder.submit(*engine, std::move(r));
      }
      engine->cancel(request_of(caller, kEach - 1).id);
      for (int i = 0; i < kEach; i++) {
        const uint64_t id = request_of(caller, i).id;
        const Outcome got = recorder.wait(id);
        if (!cancelled(i) && got.tokens != expected.at(id)) recorder.fail("other tokens than alone");
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  over = true;
  watcher.join();
  return recorder.failure().empty() ? idle(*engine) : recorder.failure();
}

std::string many(const Subject& subject) {
  return together(subject, 0);
}

/// Room for one long sequence and little more, so that the rest wait and cached pages are taken back.
std::string few_pages(const Subject& subject) {
  return together(subject, 8);
}

/// What memory has no room for comes from disk, also after a restart.
std::string disk(const Subject& subject) {
  std::string folder = (std::filesystem::temp_directory_path() / "sparrow-engine-XXXXXX").string();
  if (!mkdtemp(folder.data())) return "no folder";
  Subject with = subject;
  with.cache = folder;
  std::string wrong = together(with, 8);
  if (wrong.empty()) wrong = together(with, 8);
  std::filesystem::remove_all(folder);
  return wrong;
}

std::string prefix(const Subject& subject) {
  Recorder recorder;
  const auto engine = recorder.open(subject.options());
  Request r = request_of(0, 0);
  r.tokens.resize(150, 5);
  const Outcome cold = recorder.run(*engine, r);
  r.id++;
  const Outcome warm = recorder.run(*engine, r);
  if (cold.cached != 0 || warm.cached != 128) return "the second does not find two pages of the first";
  if (cold.tokens != warm.tokens) return "the cached prefix gives other tokens";
  return idle(*engine);
}

/// An engine destroyed at any moment of its work: every sequence ends, once, and nothing is called afterwards.
std::string destroyed(const Subject& subject) {
  for (int round = 0; round < 6; round++) {
    Recorder recorder;
    auto engine = recorder.open(subject.options());
    for (int i = 0; i < kEach; i++) {
      Request r = request_of(round, i);
      r.max_tokens = 200;
      recorder.submit(*engine, std::move(r));
    }
    if (round % 3) recorder.wait_for_events(round % 3 == 1 ? 1 : 40);
    engine.reset();
    for (int i = 0; i < kEach; i++) recorder.wait(request_of(round, i).id);
    if (!recorder.failure().empty()) return recorder.failure();
  }
  return "";
}

struct Case {
  const char* name;
  std::string (*run)(const Subject& subject);
};

const Case kCases[] = {
    {"many", many}, {"few_pages", few_pages}, {"disk", disk}, {"prefix", prefix}, {"destroyed", destroyed}};

int main_of(int count, char** arguments) {
  if (count < 2) return std::fprintf(stderr, "usage: engine_test FOLDER [ISA]\n"), 2;
  const std::vector<std::string> isas =
      count > 2 ? std::vector<std::string>{arguments[2]} : std::vector<std::string>{"scalar", "auto"};
  int failed = 0;
  for (const std::string& isa : isas) {
    for (const int threads : kThreads) {
      for (const Case& test : kCases) {
        const std::string wrong = test.run({arguments[1], isa, threads});
        std::printf("%-6s %-10s %d threads %s %s\n", wrong.empty() ? "ok" : "FAILED", isa.c_str(), threads, test.name,
                    wrong.c_str());
        failed += !wrong.empty();
      }
    }
  }
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace sparrow::test

int main(int count, char** arguments) {
  return sparrow::test::main_of(count, arguments);
}
