// The sink of an engine under test: keeps what each sequence got, and lets any thread wait for its end.
#pragma once
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../../../gpu-node/native/scheduler/engine.h"

namespace sparrow::test {

struct Outcome {
  std::vector<int32_t> tokens;
  int64_t cached = 0;
  int starts = 0, ends = 0;
  EndReason reason = EndReason::kError;
};

class Recorder {
 public:
  /// An engine whose events come here; ends the program when it does not open. The recorder must outlive it.
  std::unique_ptr<Engine> open(EngineOptions options);
  void submit(Engine& engine, Request request);
  Outcome wait(uint64_t id);
  Outcome run(Engine& engine, Request request);
  void wait_for_events(size_t count);

  void fail(const std::string& what);
  /// What went wrong first, or nothing.
  std::string failure();

 private:
  void take(std::vector<Event>&& events);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, Outcome> outcomes_;
  size_t events_ = 0;
  std::string failure_;
};

}  // namespace sparrow::test
