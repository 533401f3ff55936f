// The engine's outer loop: commands in, admission, steps, events out.
#include "engine.h"

#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <future>

#include "../cache/model_digest.h"

namespace sparrow {
namespace {

constexpr int64_t kKvBytesDefault = int64_t{2} << 30;
constexpr int64_t kPageBookkeeping = 512;  // what PagePool keeps of a page, and more
constexpr int kContextsDefault = 16;
constexpr size_t kStopStringsMax = 16, kStopBytesMax = 1024;

int pages_for(int64_t tokens) {
  return static_cast<int>((tokens + SP_PAGE_TOKENS - 1) / SP_PAGE_TOKENS);
}

int pages_of(const EngineOptions& options, const Model& model) {
  if (options.kv_pages > 0) return options.kv_pages;
  const int64_t context = pages_for(model.context());
  const int64_t bytes = model.page_bytes() + kPageBookkeeping;
  const int64_t pages = options.kv_bytes > 0
                            ? options.kv_bytes / bytes
                            : std::max(context, std::min(kContextsDefault * context, kKvBytesDefault / bytes));
  return static_cast<int>(std::clamp<int64_t>(pages, 1, INT_MAX));
}

/// Pages are mapped unreserved: the system would grant any number, and end the process when they are written.
bool fit_in_memory(int pages, const Model& model) {
  const int64_t memory = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
  return pages <= memory / (model.page_bytes() + kPageBookkeeping);
}

Result<std::optional<DiskFile>> open_disk(const EngineOptions& o, const Model& model) {
  if (o.cache_dir.empty() || o.cache_bytes == 0) return std::optional<DiskFile>();
  const std::string how = o.kv + ' ' + o.attention + (o.dense ? " dense" : "");
  auto file = DiskFile::open({o.cache_dir, o.cache_bytes, model_digest(model, o.model_dir, how), model.page_bytes()});
  if (!file.ok()) return file.status();
  return std::optional<DiskFile>(std::move(file.value()));
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::open(EngineOptions options, Sink sink) {
  if (options.threads <= 0) options.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  if (options.threads > 256) return error(Code::kBadArgument, "threads: at most 256");
  options.step_tokens = std::clamp(options.step_tokens, 1, 8192);
  Result<Model> model = Model::open(options.model_dir, options.isa, options.threads, options.context, options.kv,
                                    options.speculate, options.attention);
  if (!model.ok()) return model.status();
  model.value().attend_to_all(options.dense);
  const int pages = pages_of(options, model.value());
  KvMemory kv = fit_in_memory(pages, model.value()) ? model.value().make_kv(pages) : KvMemory();
  if (!kv.bytes.data())
    return error(Code::kEngineFailed, "no memory for " + std::to_string(pages) + " KV pages; ask for fewer");
  auto disk = open_disk(options, model.value());
  if (!disk.ok()) return disk.status();
  return std::unique_ptr<Engine>(new Engine(std::move(model.value()), std::move(options), std::move(kv),
                                            std::move(disk.value()), std::move(sink)));
}

Engine::Engine(Model model, EngineOptions options, KvMemory kv, std::optional<DiskFile> disk, Sink sink)
    : model_(std::move(model)),
      options_(std::move(options)),
      kv_(std::move(kv)),
      pool_(kv_.pages, disk.has_value()),
      sink_(std::move(sink)),
      tiers_(pool_, kv_, disk ? std::make_unique<DiskTier>(std::move(*disk), [this] { disk_progressed(); }) : nullptr) {
  stats_.pages = kv_.pages;
  thread_ = std::thread([this] { run(); });
}

Engine::~Engine() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Engine::disk_progressed() {
  {
    std::lock_guard lock(mutex_);
    disk_progress_ = true;
  }
  wake_.notify_one();
}

Status Engine::submit(Request r) {
  const int32_t vocab = model_.config().vocab_size;
  if (r.tokens.empty()) return error(Code::kBadArgument, "tokens: at least one is needed");
  if (static_cast<int64_t>(r.tokens.size()) + 1 > context()) {
    return error(Code::kContextTooLong, "the prompt has " + std::to_string(r.tokens.size()) +
                                            " tokens; the context holds " + std::to_string(context()) +
                                            ", one of them for the answer");
  }
  for (const int32_t id : r.tokens) {
    if (id < 0 || id >= vocab)
      return error(Code::kBadArgument, "tokens: " + std::to_string(id) + " is no token of the vocabulary");
    if (r.prompt_logprobs && id >= allowed())
      return error(Code::kBadArgument, "promptLogprobs: " + std::to_string(id) + " is a token that has none");
  }
  if (r.prompt_logprobs && r.top_logprobs < 0) return error(Code::kBadArgument, "promptLogprobs: needs topLogprobs");
  if (!(r.sampling.temperature >= 0 && r.sampling.temperature <= 100))
    return error(Code::kBadArgument, "temperature: from 0 to 100");
  if (!(r.sampling.top_p >= 0 && r.sampling.top_p <= 1)) return error(Code::kBadArgument, "topP: from 0 to 1");
  for (const auto& [id, gain] : r.sampling.bias) {
    if (id < 0 || id >= vocab)
      return error(Code::kBadArgument, "logitBias: " + std::to_string(id) + " is no token of the vocabulary");
  }
  if (r.max_tokens < 1) return error(Code::kBadArgument, "maxTokens: at least 1");
  if (r.priority < kPriorityMin || r.priority > kPriorityMax)
    return error(Code::kBadArgument, "priority: from -2 to 2");
  if (r.stop.size() > kStopStringsMax) return error(Code::kBadArgument, "stop: too many strings");
  for (const std::string& stop : r.stop) {
    if (stop.empty() || stop.size() > kStopBytesMax)
      return error(Code::kBadArgument, "stop: a string is empty or too long");
  }
  r.max_tokens = std::min(r.max_tokens, context() - static_cast<int32_t>(r.tokens.size()));
  auto s = std::make_unique<Sequence>(std::move(r));
  s->arrived = Clock::now();
  if (s->request.deadline_ms > 0) s->deadline = s->arrived + std::chrono::milliseconds(s->request.deadline_ms);
  {
    std::lock_guard lock(mutex_);
    submitted_.push_back(std::move(s));
    stats_.waiting++;
    stats_.busy = 1;
  }
  wake_.notify_one();
  return ok_status();
}

void Engine::cancel(uint64_t id) {
  {
    std::lock_guard lock(mutex_);
    cancelled_.push_back(id);
    stats_.busy = 1;
  }
  wake_.notify_one();
}

EngineStats Engine::stats() const {
  EngineStats out;
  {
    std::lock_guard lock(mutex_);
    out = stats_;
  }
  const int64_t fresh = out.disk.pending;
  out.disk = tiers_.stats();
  out.disk.pending += fresh;
  return out;
}

void Engine::between_steps(const std::function<void()>& work) {
  // The engine thread's own share of it: it is still inside set_value when the waiter wakes and returns.
  const auto done = std::make_shared<std::promise<void>>();
  {
    std::lock_guard lock(mutex_);
    work_.push_back([&work, done] {
      work();
      done->set_value();
    });
  }
  wake_.notify_one();
  done->get_future().wait();
}

std::string Engine::check_integrity() {
  std::string wrong;
  between_steps([&] { wrong = pool_.check_integrity(); });
  return wrong;
}

void Engine::run() {
  while (take_commands()) {
    tiers_.pump();
    sample_held();
    look_at_clock();
    end_overdue();
    admit();
    const int64_t preemptions = counters_.preemptions;
    stuck_ = !step() && counters_.preemptions == preemptions;
    tiers_.pump();
    flush();
  }
  for (auto& s : running_) end(*s, EndReason::kCancelled, "the engine was closed");
  for (auto& s : waiting_) end(*s, EndReason::kCancelled, "the engine was closed");
  flush();
}

/// Sleeps while there is nothing to do; false when the engine is to stop.
bool Engine::take_commands() {
  std::vector<std::function<void()>> work;
  {
    std::unique_lock lock(mutex_);
    const auto due = [&] {
      return stop_ || !submitted_.empty() || !cancelled_.empty() || !work_.empty() || !masks_.empty() ||
             disk_progress_ || !idle();
    };
    if (!due()) {
      if (const auto deadline = next_deadline())
        wake_.wait_until(lock, *deadline, due);
      else
        wake_.wait(lock, due);
    }
    disk_progress_ = false;
    for (auto& s : submitted_) {
      s->number = arrivals_++;
      shares_.enter(s->request.account);
      waiting_.push_back(std::move(s));
    }
    for (const uint64_t id : cancelled_) {
      for (auto& s : running_)
        if (s->request.id == id) end(*s, EndReason::kCancelled);
      for (auto& s : waiting_)
        if (s->request.id == id) end(*s, EndReason::kCancelled);
    }
    take_masks();
    submitted_.clear();
    cancelled_.clear();
    work.swap(work_);
    if (stop_ && work.empty()) return false;
  }
  for (const auto& w : work) w();
  std::erase_if(running_, [](const auto& s) { return s->ended; });
  std::erase_if(waiting_, [](const auto& s) { return s->ended; });
  return true;
}

void Engine::end(Sequence& s, EndReason reason, std::string message) {
  if (s.ended) return;
  s.ended = true;
  pool_.release_all(s.pages);
  shares_.leave(s.request.account, !s.started);
  counters_.deadlines += reason == EndReason::kDeadline;
  Event e;
  e.kind = Event::Kind::kEnd;
  e.id = s.request.id;
  e.prompt_tokens = s.prompt;
  e.cached_tokens = s.cached;
  e.computed_tokens = std::max(s.prefilled - s.cached, 0);
  e.sampled_tokens = s.sampled();
  e.reason = reason;
  e.message = std::move(message);
  events_.push_back(std::move(e));
}

void Engine::flush() {
  {
    std::lock_guard lock(mutex_);
    counters_.running = static_cast<int64_t>(running_.size());
    counters_.waiting = static_cast<int64_t>(waiting_.size() + submitted_.size());
    counters_.busy = !idle() || !submitted_.empty() || !cancelled_.empty() || !masks_.empty();
    counters_.pages = pool_.pages();
    counters_.pages_used = pool_.pages() - pool_.available();
    counters_.pages_cached = pool_.cached();
    counters_.sparse_queries = model_.sparse_queries();
    counters_.hits = tiers_.hits();
    counters_.evictions = pool_.evictions();
    counters_.disk.pending = static_cast<int64_t>(pool_.fresh());
    stats_ = counters_;
  }
  if (!events_.empty()) sink_(std::exchange(events_, {}));
}

}  // namespace sparrow
