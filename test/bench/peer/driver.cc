// Times llama.cpp through the library that npm ships: no JavaScript in its loop. Commands come on stdin, one a line,
// each answered by one line of JSON; the cache stays filled between them, so that two engines can take turns at one
// depth. driver LIBRARIES MODEL.gguf THREADS CONTEXT
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "llama.h"

namespace {

constexpr int kChunk = 512;

using ModelPtr = std::unique_ptr<llama_model, decltype(&llama_model_free)>;
using ContextPtr = std::unique_ptr<llama_context, decltype(&llama_free)>;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void only_errors(ggml_log_level level, const char* text, void*) {
  if (level >= GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
}

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "driver: %s\n", what);
  std::exit(1);
}

/// A batch whose every token says where it stands, in which sequence, and whether its logits are wanted.
class Tokens {
 public:
  void add(llama_token id, llama_pos position, llama_seq_id sequence, bool logits) {
    ids_.push_back(id);
    positions_.push_back(position);
    sequences_.push_back(sequence);
    wanted_.push_back(logits);
  }

  /// All of it, `most` tokens a call.
  void decode(llama_context* context, int most) {
    std::vector<llama_seq_id*> sequences(ids_.size());
    std::vector<int32_t> ones(ids_.size(), 1);
    for (size_t i = 0; i < ids_.size(); i++) sequences[i] = &sequences_[i];
    for (size_t i = 0; i < ids_.size(); i += static_cast<size_t>(most)) {
      llama_batch part{};
      part.n_tokens = static_cast<int32_t>(std::min<size_t>(static_cast<size_t>(most), ids_.size() - i));
      part.token = ids_.data() + i;
      part.pos = positions_.data() + i;
      part.n_seq_id = ones.data() + i;
      part.seq_id = sequences.data() + i;
      part.logits = wanted_.data() + i;
      if (llama_decode(context, part)) die("llama_decode failed");
    }
  }

 private:
  std::vector<llama_token> ids_;
  std::vector<llama_pos> positions_;
  std::vector<llama_seq_id> sequences_;
  std::vector<int8_t> wanted_;
};

class Peer {
 public:
  Peer(llama_model* model, int threads, int context)
      : model_(model),
        threads_(threads),
        vocab_(llama_vocab_n_tokens(llama_model_get_vocab(model))),
        context_(open(static_cast<uint32_t>(context), 1, kChunk)) {
    fill(64);
    clear();
  }

  int vocab() const { return vocab_; }

  void clear() {
    llama_memory_clear(memory(), true);
    depth_ = 0;
  }

  void fill(int count) {
    const double start = seconds();
    feed(random_tokens(count));
    llama_synchronize(context_.get());
    depth_ += count;
    std::printf("{\"depth\":%d,\"seconds\":%.6f}\n", depth_, seconds() - start);
  }

  /// `count` tokens after what is there, the logits of the last; then back.
  void prefill(int count) {
    const std::vector<llama_token> ids = random_tokens(count);
    const double start = seconds();
    feed(ids);
    llama_get_logits_ith(context_.get(), -1);
    const double took = seconds() - start;
    go_back();
    std::printf("{\"seconds\":%.6f}\n", took);
  }

  /// `count` greedy steps after what is there, at least one token; then back.
  void decode(int count) {
    if (depth_ == 0) feed(random_tokens(1));
    llama_token id = 2;
    const double start = seconds();
    for (int i = 0; i < count; i++) {
      feed({id});
      const float* logits = llama_get_logits_ith(context_.get(), -1);
      id = static_cast<llama_token>(std::max_element(logits, logits + vocab_) - logits);
    }
    const double took = seconds() - start;
    go_back();
    std::printf("{\"seconds\":%.6f}\n", took);
  }

  /// What llama-batched-bench does: `sequences` prompts of their own, together; then one random token of each a step.
  void batch(int sequences, int prompt, int steps) {
    constexpr uint32_t kBatch = 2048;  // llama-batched-bench's defaults: this, 512 of it at once, no unified cache
    const ContextPtr own =
        open(static_cast<uint32_t>(sequences * (prompt + steps)), static_cast<uint32_t>(sequences), kBatch);
    double at = seconds();
    Tokens prompts;
    for (int s = 0; s < sequences; s++) {
      for (int i = 0; i < prompt; i++) prompts.add(random_token(), i, s, i == prompt - 1);
    }
    prompts.decode(own.get(), kBatch);
    llama_synchronize(own.get());
    const double prefill = seconds() - at;
    at = seconds();
    for (int i = 0; i < steps; i++) {
      Tokens step;
      for (int s = 0; s < sequences; s++) step.add(random_token(), prompt + i, s, true);
      step.decode(own.get(), kBatch);
      llama_synchronize(own.get());
    }
    std::printf("{\"prefill\":%.6f,\"decode\":%.6f}\n", prefill, seconds() - at);
  }

  /// The likeliest `top` next tokens after `ids`, with their log-probabilities. Empties the cache.
  void answers(int top, const std::vector<llama_token>& ids) {
    clear();
    feed(ids);
    const float* logits = llama_get_logits_ith(context_.get(), -1);
    const double most = *std::max_element(logits, logits + vocab_);
    double sum = 0;
    for (int i = 0; i < vocab_; i++) sum += std::exp(logits[i] - most);
    std::vector<int> order(static_cast<size_t>(vocab_));
    std::iota(order.begin(), order.end(), 0);
    const auto end = order.begin() + std::min(top, vocab_);
    std::partial_sort(order.begin(), end, order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
    std::printf("{\"top\":[");
    for (auto at = order.begin(); at != end; ++at)
      std::printf("%s[%d,%.7f]", at == order.begin() ? "" : ",", *at, logits[*at] - most - std::log(sum));
    std::printf("]}\n");
    clear();
  }

 private:
  ContextPtr open(uint32_t cells, uint32_t sequences, uint32_t batch) const {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = cells;
    params.n_seq_max = sequences;
    params.n_batch = batch;
    params.n_ubatch = kChunk;
    params.n_threads = params.n_threads_batch = threads_;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.no_perf = true;
    ContextPtr context(llama_init_from_model(model_, params), &llama_free);
    if (!context) die("no context of this size");
    return context;
  }

  llama_memory_t memory() const { return llama_get_memory(context_.get()); }
  void go_back() { llama_memory_seq_rm(memory(), 0, depth_, -1); }

  llama_token random_token() {
    state_ = state_ * 1664525u + 1013904223u;
    return static_cast<llama_token>((state_ >> 8) % static_cast<uint32_t>(vocab_));
  }
  std::vector<llama_token> random_tokens(int count) {
    std::vector<llama_token> ids(static_cast<size_t>(count));
    for (llama_token& id : ids) id = random_token();
    return ids;
  }

  /// In sequence 0, after what is there; logits of the last one of each chunk.
  void feed(std::vector<llama_token> ids) {
    for (size_t i = 0; i < ids.size(); i += kChunk) {
      const auto count = static_cast<int32_t>(std::min<size_t>(kChunk, ids.size() - i));
      if (llama_decode(context_.get(), llama_batch_get_one(ids.data() + i, count))) die("llama_decode failed");
    }
  }

  llama_model* model_;
  int threads_;
  int vocab_;
  int depth_ = 0;
  uint32_t state_ = 7;
  ContextPtr context_;
};

/// False when the line is no command.
bool obey(Peer& peer, const std::string& line) {
  std::istringstream words(line);
  std::string command;
  words >> command;
  std::vector<int> n;
  for (int value; words >> value;) n.push_back(value);
  if (command == "fill" && n.size() == 1) return peer.fill(n[0]), true;
  if (command == "prefill" && n.size() == 1) return peer.prefill(n[0]), true;
  if (command == "decode" && n.size() == 1) return peer.decode(n[0]), true;
  if (command == "batch" && n.size() == 3) return peer.batch(n[0], n[1], n[2]), true;
  if (command == "answers" && n.size() > 1) return peer.answers(n[0], {n.begin() + 1, n.end()}), true;
  return false;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 5) die("usage: driver LIBRARIES MODEL.gguf THREADS CONTEXT");
  llama_log_set(only_errors, nullptr);
  ggml_backend_load_all_from_path(arguments[1]);
  llama_backend_init();
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = 0;
  const ModelPtr model(llama_model_load_from_file(arguments[2], params), &llama_model_free);
  if (!model) die("the model does not load");
  // The warming up answers too: that line says that the driver is ready.
  Peer peer(model.get(), std::atoi(arguments[3]), std::atoi(arguments[4]));
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    if (!obey(peer, line)) die("no such command");
    std::fflush(stdout);
  }
  return 0;
}
