// Errors as values. No exception leaves the engine: a failed call returns a Status that names the tensor or field at
// fault.
#pragma once
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace sparrow {

enum class Code { kOk, kCheckpointInvalid, kUnsupported, kContextTooLong, kBadArgument, kEngineFailed };

/// The code's name as JavaScript sees it.
constexpr const char* name_of(Code code) {
  switch (code) {
    case Code::kOk:
      return "ok";
    case Code::kCheckpointInvalid:
      return "checkpoint_invalid";
    case Code::kUnsupported:
      return "unsupported";
    case Code::kContextTooLong:
      return "context_too_long";
    case Code::kBadArgument:
      return "bad_argument";
    case Code::kEngineFailed:
      return "engine_failed";
  }
  return "engine_failed";
}

struct Status {
  Code code = Code::kOk;
  std::string message;
  bool ok() const { return code == Code::kOk; }
};

inline Status ok_status() {
  return {};
}
inline Status error(Code code, std::string message) {
  return {code, std::move(message)};
}
inline Status invalid(std::string message) {
  return {Code::kCheckpointInvalid, std::move(message)};
}
inline Status unsupported(std::string message) {
  return {Code::kUnsupported, std::move(message)};
}

/// A value or the Status that explains its absence.
template <class T>
class Result {
 public:
  Result(T value) : state_(std::move(value)) {}
  Result(Status status) : state_(std::move(status)) {}
  bool ok() const { return std::holds_alternative<T>(state_); }
  T& value() { return std::get<T>(state_); }
  const T& value() const { return std::get<T>(state_); }
  const Status& status() const { return std::get<Status>(state_); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace sparrow
