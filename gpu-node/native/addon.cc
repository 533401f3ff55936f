// The only file that knows about Node: arguments in, promises and events out. No logic, no exception across the border.
// open(json, tokenBytes, onEvents) -> Promise<handle>; the others take the handle. Settings and figures cross as JSON,
// parsed elsewhere; token ids, bytes and floats as typed arrays.
#define NAPI_DISABLE_CPP_EXCEPTIONS
#include <napi.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bench/command.h"
#include "scheduler/probe.h"
#include "scheduler/request.h"

namespace {

using sparrow::Engine;
using sparrow::Event;

/// Events wait here until JavaScript takes all of them at once; it is woken only when it is not already on its way.
class EventChannel {
 public:
  void start(Napi::ThreadSafeFunction wake) { wake_ = std::move(wake); }

  void push(std::vector<Event>&& events) {
    {
      std::lock_guard lock(mutex_);
      pending_.insert(pending_.end(), std::make_move_iterator(events.begin()), std::make_move_iterator(events.end()));
      if (std::exchange(woken_, true)) return;
    }
    wake_.NonBlockingCall([this](Napi::Env env, Napi::Function on_events) { deliver(env, on_events); });
  }

  void stop() { wake_.Release(); }

 private:
  /// id, logprob, id, logprob, ...
  static Napi::Float64Array pairs(Napi::Env env, const std::vector<sparrow::TokenLogprob>& logprobs) {
    Napi::Float64Array out = Napi::Float64Array::New(env, 2 * logprobs.size());
    for (size_t i = 0; i < logprobs.size(); i++) out[2 * i] = logprobs[i].id, out[2 * i + 1] = logprobs[i].logprob;
    return out;
  }

  static Napi::Object to_object(Napi::Env env, const Event& e) {
    Napi::Object out = Napi::Object::New(env);
    out.Set("id", static_cast<double>(e.id));
    if (e.kind == Event::Kind::kTokens || e.kind == Event::Kind::kPrompt) {
      out.Set(e.kind == Event::Kind::kTokens ? "token" : "promptToken", e.token);
      if (!e.logprobs.empty()) out.Set("logprobs", pairs(env, e.logprobs));
      return out;
    }
    out.Set("promptTokens", static_cast<double>(e.prompt_tokens));
    out.Set("cachedTokens", static_cast<double>(e.cached_tokens));
    if (e.kind == Event::Kind::kStart) return out;
    out.Set("computedTokens", static_cast<double>(e.computed_tokens));
    out.Set("sampledTokens", static_cast<double>(e.sampled_tokens));
    out.Set("reason", sparrow::name_of(e.reason));
    if (!e.message.empty()) out.Set("message", e.message);
    return out;
  }

  void deliver(Napi::Env env, Napi::Function on_events) {
    std::vector<Event> events;
    {
      std::lock_guard lock(mutex_);
      events.swap(pending_);
      woken_ = false;
    }
    if (!env || events.empty()) return;
    Napi::HandleScope scope(env);
    Napi::Array out = Napi::Array::New(env, events.size());
    for (size_t i = 0; i < events.size(); i++) out.Set(static_cast<uint32_t>(i), to_object(env, events[i]));
    on_events.Call({out});
  }

  std::mutex mutex_;
  std::vector<Event> pending_;
  bool woken_ = false;
  Napi::ThreadSafeFunction wake_;
};

/// What JavaScript holds: the engine and its channel, in the order in which they must die.
struct Handle {
  EventChannel channel;
  std::unique_ptr<Engine> engine;

  void close() {
    if (!engine) return;
    engine.reset();
    channel.stop();
  }
};

Napi::Error to_error(Napi::Env env, const sparrow::Status& status) {
  Napi::Error error = Napi::Error::New(env, status.message);
  error.Set("code", Napi::String::New(env, sparrow::name_of(status.code)));
  return error;
}

Napi::Value fail(Napi::Env env, const sparrow::Status& status) {
  to_error(env, status).ThrowAsJavaScriptException();
  return env.Undefined();
}

Napi::Value bad(Napi::Env env, const char* what) {
  return fail(env, sparrow::error(sparrow::Code::kBadArgument, what));
}

Handle* handle_of(const Napi::CallbackInfo& info) {
  if (info.Length() < 1 || !info[0].IsExternal()) return nullptr;
  Handle* handle = info[0].As<Napi::External<std::shared_ptr<Handle>>>().Data()->get();
  return handle->engine ? handle : nullptr;
}

std::string bytes_of(const Napi::Value& value) {
  const Napi::Uint8Array array = value.As<Napi::Uint8Array>();
  return {reinterpret_cast<const char*>(array.Data()), array.ByteLength()};
}

/// False when `value` is no array of Uint8Array.
bool byte_strings(const Napi::Value& value, std::vector<std::string>& out) {
  if (!value.IsArray()) return false;
  const Napi::Array array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); i++) {
    const Napi::Value item = array.Get(i);
    if (!item.IsTypedArray() || item.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) return false;
    out.push_back(bytes_of(item));
  }
  return true;
}

Napi::Object info_of(Napi::Env env, Engine& engine) {
  const sparrow::ModelConfig& config = engine.model().config();
  Napi::Object out = Napi::Object::New(env);
  out.Set("vocabSize", config.vocab_size);
  out.Set("contextLength", engine.context());
  out.Set("pageTokens", SP_PAGE_TOKENS);
  out.Set("kvPages", engine.pages());
  out.Set("backend", engine.model().backend().name);
  out.Set("isa", engine.model().backend().isa);
  out.Set("pageBytes", static_cast<double>(engine.model().page_bytes()));
  out.Set("parameters", static_cast<double>(engine.model().weights().parameters));
  out.Set("weightBytes", static_cast<double>(engine.model().weights().files->total_bytes()));
  out.Set("speculates", engine.model().drafts());
  Napi::Array eos = Napi::Array::New(env);
  for (uint32_t i = 0; i < config.eos_token_ids.size(); i++) eos.Set(i, config.eos_token_ids[i]);
  out.Set("eosTokenIds", eos);
  return out;
}

/// Loads the checkpoint off the JavaScript thread.
class OpenWorker : public Napi::AsyncWorker {
 public:
  OpenWorker(Napi::Env env, sparrow::EngineOptions options, std::shared_ptr<Handle> handle)
      : Napi::AsyncWorker(env),
        deferred(Napi::Promise::Deferred::New(env)),
        options_(std::move(options)),
        handle_(std::move(handle)) {}

  void Execute() override {
    auto result = Engine::open(std::move(options_),
                               [channel = &handle_->channel](std::vector<Event>&& e) { channel->push(std::move(e)); });
    if (result.ok())
      handle_->engine = std::move(result.value());
    else
      status_ = result.status();
  }

  void OnOK() override {
    Napi::Env env = Env();
    if (!status_.ok()) {
      handle_->channel.stop();
      deferred.Reject(to_error(env, status_).Value());
      return;
    }
    // The engine thread must be gone before the environment is.
    env.AddCleanupHook([handle = handle_] { handle->close(); });
    Napi::Object out = Napi::Object::New(env);
    out.Set("handle",
            Napi::External<std::shared_ptr<Handle>>::New(env, new std::shared_ptr<Handle>(handle_),
                                                         [](Napi::Env, std::shared_ptr<Handle>* h) { delete h; }));
    out.Set("info", info_of(env, *handle_->engine));
    deferred.Resolve(out);
  }

  Napi::Promise::Deferred deferred;

 private:
  sparrow::EngineOptions options_;
  std::shared_ptr<Handle> handle_;
  sparrow::Status status_;
};

Napi::Value open(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (info.Length() < 3 || !info[0].IsString() || !info[2].IsFunction())
    return bad(env, "open(options, tokenBytes, onEvents)");
  auto options = sparrow::parse_options(info[0].As<Napi::String>().Utf8Value());
  if (!options.ok()) return fail(env, options.status());
  if (!byte_strings(info[1], options.value().token_bytes))
    return bad(env, "tokenBytes: an array of Uint8Array is needed");
  auto handle = std::make_shared<Handle>();
  Napi::ThreadSafeFunction wake =
      Napi::ThreadSafeFunction::New(env, info[2].As<Napi::Function>(), "sparrow events", 0, 1);
  wake.Unref(env);  // an idle engine does not keep the process alive
  handle->channel.start(std::move(wake));
  auto* worker = new OpenWorker(env, std::move(options.value()), std::move(handle));
  const Napi::Promise promise = worker->deferred.Promise();
  worker->Queue();
  return promise;
}

/// submit(handle, spec, tokens, stop): the spec in JSON, Int32Array, array of Uint8Array.
Napi::Value submit(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Handle* handle = handle_of(info);
  if (!handle) return fail(env, sparrow::error(sparrow::Code::kEngineFailed, "the engine is closed"));
  if (info.Length() < 4 || !info[1].IsString()) return bad(env, "submit(handle, spec, tokens, stop)");
  if (!info[2].IsTypedArray() || info[2].As<Napi::TypedArray>().TypedArrayType() != napi_int32_array)
    return bad(env, "tokens: an Int32Array is needed");
  auto request = sparrow::parse_request(info[1].As<Napi::String>().Utf8Value());
  if (!request.ok()) return fail(env, request.status());
  const Napi::Int32Array ids = info[2].As<Napi::Int32Array>();
  request.value().tokens.assign(ids.Data(), ids.Data() + ids.ElementLength());
  if (!byte_strings(info[3], request.value().stop)) return bad(env, "stop: an array of Uint8Array is needed");
  const sparrow::Status status = handle->engine->submit(std::move(request.value()));
  return status.ok() ? env.Undefined() : fail(env, status);
}

Napi::Value cancel(const Napi::CallbackInfo& info) {
  Handle* handle = handle_of(info);
  if (handle && info.Length() > 1 && info[1].IsNumber())
    handle->engine->cancel(static_cast<uint64_t>(info[1].As<Napi::Number>().DoubleValue()));
  return info.Env().Undefined();
}

/// mask(handle, id, position, words): a Uint32Array, see Mask in sequence.h.
Napi::Value mask(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Handle* handle = handle_of(info);
  if (!handle) return env.Undefined();  // closed: its sequences have ended
  const bool fits = info.Length() > 3 && info[1].IsNumber() && info[2].IsNumber() && info[3].IsTypedArray() &&
                    info[3].As<Napi::TypedArray>().TypedArrayType() == napi_uint32_array;
  if (!fits) return bad(env, "mask(handle, id, position, words)");
  const Napi::Uint32Array words = info[3].As<Napi::Uint32Array>();
  handle->engine->mask({static_cast<uint64_t>(info[1].As<Napi::Number>().DoubleValue()),
                        info[2].As<Napi::Number>().Int32Value(),
                        {words.Data(), words.Data() + words.ElementLength()}});
  return env.Undefined();
}

Napi::Value stats(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Handle* handle = handle_of(info);
  if (!handle) return fail(env, sparrow::error(sparrow::Code::kEngineFailed, "the engine is closed"));
  return Napi::String::New(env, sparrow::to_json(handle->engine->stats()));
}

Napi::Float32Array floats(Napi::Env env, const std::vector<float>& values) {
  Napi::Float32Array out = Napi::Float32Array::New(env, values.size());
  std::copy(values.begin(), values.end(), out.Data());
  return out;
}

/// evaluate(handle, [tokens, ...], [chunk, ...], lastOnly, withTaps) -> {logits: [...], taps}: the sequences side by
/// side in each step; for tests and tools; blocks.
Napi::Value evaluate(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Handle* handle = handle_of(info);
  if (!handle) return fail(env, sparrow::error(sparrow::Code::kEngineFailed, "the engine is closed"));
  if (info.Length() < 5 || !info[1].IsArray() || !info[2].IsArray())
    return bad(env, "evaluate(handle, tokens, chunks, lastOnly, taps)");
  const Napi::Array tokens = info[1].As<Napi::Array>(), chunks = info[2].As<Napi::Array>();
  std::vector<sparrow::ProbeSequence> sequences(tokens.Length());
  for (uint32_t i = 0; i < sequences.size(); i++) {
    const Napi::Value ids = tokens.Get(i);
    if (!ids.IsTypedArray() || ids.As<Napi::TypedArray>().TypedArrayType() != napi_int32_array)
      return bad(env, "tokens: an Int32Array each is needed");
    const Napi::Int32Array array = ids.As<Napi::Int32Array>();
    sequences[i].tokens.assign(array.Data(), array.Data() + array.ElementLength());
    sequences[i].chunk = chunks.Get(i).ToNumber().Int32Value();
  }
  std::vector<sparrow::ProbeTap> shown;
  sparrow::Status status;
  handle->engine->between_steps([&] {
    status = sparrow::evaluate(handle->engine->model(), sequences, info[3].ToBoolean(),
                               info[4].ToBoolean() ? &shown : nullptr);
  });
  if (!status.ok()) return fail(env, status);
  Napi::Object out = Napi::Object::New(env);
  Napi::Array taps = Napi::Array::New(env);
  for (uint32_t i = 0; i < shown.size(); i++) {
    Napi::Object tap = Napi::Object::New(env);
    tap.Set("layer", shown[i].layer);
    tap.Set("name", shown[i].name);
    tap.Set("columns", static_cast<double>(shown[i].columns));
    tap.Set("data", floats(env, shown[i].data));
    taps.Set(i, tap);
  }
  Napi::Array logits = Napi::Array::New(env, sequences.size());
  for (uint32_t i = 0; i < sequences.size(); i++) logits.Set(i, floats(env, sequences[i].logits));
  out.Set("logits", logits);
  out.Set("taps", taps);
  return out;
}

/// bench(handle, plan) -> times, both in JSON; blocks.
Napi::Value bench(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Handle* handle = handle_of(info);
  if (!handle) return fail(env, sparrow::error(sparrow::Code::kEngineFailed, "the engine is closed"));
  if (info.Length() < 2 || !info[1].IsString()) return bad(env, "bench(handle, plan)");
  const auto times = sparrow::bench_command(*handle->engine, info[1].As<Napi::String>().Utf8Value());
  return times.ok() ? Napi::String::New(env, times.value()) : fail(env, times.status());
}

/// integrity(handle) -> "" or what is wrong with the page pool.
Napi::Value integrity(const Napi::CallbackInfo& info) {
  Handle* handle = handle_of(info);
  return Napi::String::New(info.Env(), handle ? handle->engine->check_integrity() : "the engine is closed");
}

Napi::Value close(const Napi::CallbackInfo& info) {
  if (Handle* handle = handle_of(info)) handle->close();
  return info.Env().Undefined();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("open", Napi::Function::New(env, open));
  exports.Set("submit", Napi::Function::New(env, submit));
  exports.Set("cancel", Napi::Function::New(env, cancel));
  exports.Set("mask", Napi::Function::New(env, mask));
  exports.Set("stats", Napi::Function::New(env, stats));
  exports.Set("evaluate", Napi::Function::New(env, evaluate));
  exports.Set("bench", Napi::Function::New(env, bench));
  exports.Set("integrity", Napi::Function::New(env, integrity));
  exports.Set("close", Napi::Function::New(env, close));
  return exports;
}

}  // namespace

NODE_API_MODULE(sparrow, init)
