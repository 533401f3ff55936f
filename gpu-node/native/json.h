// A small, bounds-checked JSON reader for config.json, safetensors headers and shard indexes. Hostile bytes end in a
// Status.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "status.h"

namespace sparrow {

struct Json {
  enum class Kind { kNull, kBool, kNumber, kString, kArray, kObject };
  Kind kind = Kind::kNull;
  bool boolean = false;
  double number = 0;
  std::string string;
  std::vector<Json> items;
  std::map<std::string, Json, std::less<>> fields;

  /// The field, or nullptr when this is no object or has none of that name.
  const Json* find(std::string_view name) const;
  bool is(Kind k) const { return kind == k; }
};

/// Parses the whole of `text`. Nesting is limited to 32 and values to a million (a value takes over a hundred bytes,
/// and two bytes of text can ask for one); a repeated key is an error, since readers disagree on which counts.
Result<Json> parse_json(std::string_view text);

}  // namespace sparrow
