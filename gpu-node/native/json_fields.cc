// Bounds are checked before a double becomes an integer: the other order is undefined.
#include "json_fields.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace sparrow {
namespace {

/// Shortest form, as users write it.
std::string shown(double value) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.15g", value);
  return digits;
}

std::string range(double least, double most) {
  return "from " + shown(least) + " to " + shown(most);
}

}  // namespace

JsonFields::JsonFields(std::string_view text) {
  Result<Json> parsed = parse_json(text);
  if (!parsed.ok())
    status_ = error(Code::kBadArgument, parsed.status().message);
  else if (!parsed.value().is(Json::Kind::kObject))
    status_ = error(Code::kBadArgument, "an object is needed");
  else
    root_ = std::move(parsed.value());
}

const Json* JsonFields::raw(std::string_view name) {
  known_.emplace_back(name);
  return root_.find(name);
}

void JsonFields::refuse(std::string_view name, const std::string& what) {
  if (status_.ok()) status_ = error(Code::kBadArgument, std::string(name) + ": " + what);
}

void JsonFields::text(std::string_view name, std::string& out) {
  const Json* field = raw(name);
  if (!field) return;
  if (!field->is(Json::Kind::kString)) return refuse(name, "a string is needed");
  out = field->string;
}

void JsonFields::flag(std::string_view name, bool& out) {
  const Json* field = raw(name);
  if (!field) return;
  if (!field->is(Json::Kind::kBool)) return refuse(name, "true or false is needed");
  out = field->boolean;
}

void JsonFields::number(std::string_view name, double& out, double least, double most) {
  const Json* field = raw(name);
  if (!field) return;
  if (!field->is(Json::Kind::kNumber) || !(field->number >= least && field->number <= most))
    return refuse(name, range(least, most));
  out = field->number;
}

void JsonFields::integer(std::string_view name, int64_t& out, int64_t least, int64_t most) {
  double value = static_cast<double>(out);
  number(name, value, static_cast<double>(least), static_cast<double>(most));
  if (value != std::floor(value)) return refuse(name, "a whole number is needed");
  out = static_cast<int64_t>(value);
}

void JsonFields::integer(std::string_view name, int& out, int least, int most) {
  int64_t value = out;
  integer(name, value, int64_t{least}, int64_t{most});
  out = static_cast<int>(value);
}

void JsonFields::u64(std::string_view name, uint64_t& out) {
  const Json* field = raw(name);
  if (!field) return;
  const std::string& digits = field->string;
  uint64_t value = 0;
  const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (!field->is(Json::Kind::kString) || read.ec != std::errc() || read.ptr != digits.data() + digits.size())
    return refuse(name, "an integer of 64 bits in decimal, as a string, is needed");
  out = value;
}

Status JsonFields::finish() {
  for (const auto& [name, value] : root_.fields) {
    if (std::find(known_.begin(), known_.end(), name) == known_.end()) refuse(name, "there is no such field");
  }
  return status_;
}

}  // namespace sparrow
