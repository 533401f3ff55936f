// Finds stop strings in the bytes of sampled tokens, also where one spans several of them.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace sparrow {

class StopMatch {
 public:
  /// Adds a token's bytes; true when they complete one of `stops`. Text that came while `armed` was false takes no part
  /// in a match, but for the beginning of a character that is not yet whole.
  bool push(std::string_view bytes, const std::vector<std::string>& stops, bool armed);

 private:
  std::string tail_;  // the last bytes that may belong to a match
};

}  // namespace sparrow
