// Each sequence starts at most once and ends exactly once; tokens come in between.
#include "recorder.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>

namespace sparrow::test {
namespace {
// Far beyond any run under a sanitizer on a busy machine: reached only by a sequence that is lost.
constexpr std::chrono::minutes kLost{5};
}  // namespace

std::unique_ptr<Engine> Recorder::open(EngineOptions options) {
  auto opened = Engine::open(std::move(options), [this](std::vector<Event>&& events) { take(std::move(events)); });
  if (opened.ok()) return std::move(opened.value());
  std::fprintf(stderr, "%s\n", opened.status().message.c_str());
  std::exit(2);
}

void Recorder::submit(Engine& engine, Request request) {
  if (const Status s = engine.submit(std::move(request)); !s.ok()) fail(s.message);
}

Outcome Recorder::wait(uint64_t id) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, kLost, [&] { return outcomes_[id].ends > 0; }) && failure_.empty())
    failure_ = "sequence " + std::to_string(id) + " never ended";
  return outcomes_[id];
}

Outcome Recorder::run(Engine& engine, Request request) {
  const uint64_t id = request.id;
  submit(engine, std::move(request));
  return wait(id);
}

void Recorder::wait_for_events(size_t count) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kLost, [&] { return events_ >= count; });
}

void Recorder::fail(const std::string& what) {
  std::lock_guard lock(mutex_);
  if (failure_.empty()) failure_ = what;
}

std::string Recorder::failure() {
  std::lock_guard lock(mutex_);
  return failure_;
}

void Recorder::take(std::vector<Event>&& events) {
  {
    std::lock_guard lock(mutex_);
    events_ += events.size();
    for (const Event& e : events) {
      Outcome& o = outcomes_[e.id];
      const bool sound = o.ends == 0 && (e.kind == Event::Kind::kStart    ? o.starts == 0
                                         : e.kind == Event::Kind::kTokens ? o.starts == 1
                                                                          : e.reason != EndReason::kError);
      if (!sound && failure_.empty()) failure_ = "sequence " + std::to_string(e.id) + " got events out of order";
      if (e.kind == Event::Kind::kStart)
        o.starts++, o.cached = e.cached_tokens;
      else if (e.kind == Event::Kind::kTokens)
        o.tokens.push_back(e.token);
      else
        o.ends++, o.reason = e.reason;
    }
  }
  changed_.notify_all();
}

}  // namespace sparrow::test
