// The engine: one thread owns the model, the pages and the schedule. Callers post commands; events come back once a
// step.
#pragma once
#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "../cache/page_pool.h"
#include "../cache/tiers.h"
#include "../model/model.h"
#include "fair.h"
#include "pace.h"
#include "sequence.h"

namespace sparrow {

struct EngineOptions {
  std::string model_dir, isa = "auto", kv = "auto", attention = "invariant";
  int threads = 0;                       // 0: all cores
  int kv_pages = 0;                      // 0: what kv_bytes holds
  int64_t kv_bytes = 0;                  // 0: sixteen whole contexts, at most kKvBytesDefault
  std::string cache_dir = "";            // where pages are kept beyond memory; empty: nowhere
  int64_t cache_bytes = 0;               // of that folder, at most; 0: nowhere
  int context = 0;                       // cap on the model's own; 0: none
  int step_tokens = 128;                 // tokens a step, unless more decode; beside those fewer of a prompt (pace.h)
  int max_running = 256;                 // sequences that run at once
  bool dense = false;                    // attend to all positions, without the indexer's choice
  bool speculate = true;                 // guess with the checkpoint's MTP layer, where it has one
  std::vector<std::string> token_bytes;  // bytes of each id; special tokens are empty
};

struct EngineStats {
  int64_t running = 0, waiting = 0, pages_used = 0, pages_cached = 0, pages = 0, steps = 0, prefill_tokens = 0,
          decode_tokens = 0, cached_tokens = 0, sparse_queries = 0, draft_tokens = 0, accepted_tokens = 0;
  int64_t busy = 0;                                // 1: there is work that steps should move on
  int64_t preemptions = 0, recomputed_tokens = 0;  // of sequences that gave their pages back
  int64_t admitted = 0, queue_wait_us = 0;         // sequences that began to run, and how long they had waited in all
  int64_t deadlines = 0;                           // sequences that a deadline ended
  PagePool::Hits hits;                             // pages of admitted prompts
  int64_t evictions = 0;                           // of pages from memory
  DiskStats disk;                                  // pending: published and not yet written
};

class Engine {
 public:
  /// Called on the engine thread with all events of one step.
  using Sink = std::function<void(std::vector<Event>&&)>;

  static Result<std::unique_ptr<Engine>> open(EngineOptions options, Sink sink);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Errors: context_too_long, bad_argument; nothing was done then.
  Status submit(Request request);
  void cancel(uint64_t id);
  /// What a masked sequence may sample next; one of another position than the next is not used.
  void mask(Mask mask);
  EngineStats stats() const;
  Model& model() { return model_; }
  /// Tokens of one sequence: what the model takes, and what the pages hold.
  int context() const {
    return static_cast<int>(std::min<int64_t>(model_.context(), int64_t{pool_.pages()} * SP_PAGE_TOKENS));
  }
  int pages() const { return pool_.pages(); }

  /// Runs `work` on the engine thread between steps and waits for it. For probes and tests.
  void between_steps(const std::function<void()>& work);
  std::string check_integrity();

 private:
  Engine(Model model, EngineOptions options, KvMemory kv, std::optional<DiskFile> disk, Sink sink);

  void disk_progressed();
  void run();
  bool take_commands();
  void end_overdue();
  std::optional<Clock::time_point> next_deadline() const;
  void look_at_clock();
  int32_t urgency(const Sequence& s) const;
  bool goes_before(const Sequence& a, const Sequence& b) const;
  bool is_next(const Sequence& a, const Sequence& b) const;
  void admit();
  bool try_admit(Sequence& s);
  void start(Sequence& s);
  int64_t promised() const;
  bool step();
  int32_t plan_decodes();
  void plan_prefills(int32_t budget);
  int32_t share(std::span<Sequence* const> of_one_level, int32_t budget);
  void find_pages();
  bool fit(size_t index);
  void preempt(size_t index);
  void add_tokens(Sequence& s, Batch& batch);
  void after_forward(Sequence& s);
  void score(Sequence& s);
  std::span<const float> logits_row(int32_t row) const;
  /// Logits that a sequence's next token comes from, and its mask as in SampleInput.
  struct Row {
    Sequence* sequence;
    std::span<const float> logits;
    std::span<const uint32_t> mask = {};
  };
  void sample_rows();
  void sample_each(std::span<const Row> rows);
  void hold(Sequence& s, int32_t row);
  void take_masks();
  void sample_held();
  bool idle() const;
  void reap();
  int32_t choose(Sequence& s, std::span<const float> logits, std::span<const uint32_t> mask);
  bool stops(Sequence& s, int32_t token);
  void sampled(Sequence& s, int32_t token, std::vector<TokenLogprob> logprobs);
  void publish_pages(Sequence& s);
  class Written;
  bool add_pairs(const Sequence& s, Pairs& pairs, Written& written) const;
  void draft();
  int32_t allowed() const;
  void end(Sequence& s, EndReason reason, std::string message = "");
  void flush();

  Model model_;
  EngineOptions options_;
  KvMemory kv_;
  PagePool pool_;
  Sink sink_;
  std::vector<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;
  std::vector<Event> events_;
  Lines<float> logits_;
  FairShares shares_;
  StepPace pace_;
  size_t turn_ = 0;  // who prefills first
  uint64_t arrivals_ = 0;
  Clock::time_point now_;  // of this round
  int32_t top_ = 0;        // highest priority of all sequences
  bool stuck_ = false;     // the last round did nothing

  mutable std::mutex mutex_;  // guards the commands and the published statistics
  std::condition_variable wake_;
  std::vector<std::unique_ptr<Sequence>> submitted_;
  std::vector<uint64_t> cancelled_;
  std::vector<Mask> masks_;
  std::vector<std::function<void()>> work_;
  EngineStats stats_, counters_;
  bool stop_ = false, disk_progress_ = false;
  CacheTiers tiers_;     // behind what its thread calls
  size_t fetching_ = 0;  // waiting sequences whose pages are being read
  std::thread thread_;
};

}  // namespace sparrow
