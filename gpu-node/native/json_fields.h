// Reads a flat JSON object field by field into variables; the first wrong or unknown field ends up in the Status.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "json.h"

namespace sparrow {

/// An absent field leaves the variable as it is; null is wrong (JavaScript writes NaN so). Errors (bad_argument) name
/// the field.
class JsonFields {
 public:
  explicit JsonFields(std::string_view text);

  void text(std::string_view name, std::string& out);
  void flag(std::string_view name, bool& out);
  void number(std::string_view name, double& out, double least, double most);
  /// A whole number.
  void integer(std::string_view name, int& out, int least, int most);
  void integer(std::string_view name, int64_t& out, int64_t least, int64_t most);
  /// A decimal string, since a JSON number has 53 bits.
  void u64(std::string_view name, uint64_t& out);
  /// The field as it is, or nullptr.
  const Json* raw(std::string_view name);

  /// Says that `name` is wrong, unless something was wrong before.
  void refuse(std::string_view name, const std::string& what);
  /// The first error; a field that nobody asked for is one.
  Status finish();

 private:
  Json root_;
  std::vector<std::string> known_;
  Status status_;
};

}  // namespace sparrow
