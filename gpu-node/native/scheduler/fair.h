// Whose turn it is: what each account was served, so that the one served least goes first.
#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>

namespace sparrow {

/// Tokens as they weigh in the count; their ratio is that of the default prices.
constexpr int64_t kPrefillWeight = 2, kOutputWeight = 3;

/// Virtual token counters. An account of which nothing waited starts where the others are, whatever it has running:
/// what it did not use is no credit.
class FairShares {
 public:
  /// A sequence of the account waits.
  void enter(const std::string& account);
  /// It was its turn: one of those that waited begins.
  void picked(const std::string& account);
  /// A sequence is no longer there, and never began if it `waited` until now.
  void leave(const std::string& account, bool waited);

  void charge(const std::string& account, int64_t weight);
  int64_t served(const std::string& account) const;

 private:
  struct Account {
    int64_t served = 0;
    int32_t sequences = 0;  // waiting ones included
    int32_t waiting = 0;
  };

  std::unordered_map<std::string, Account> accounts_;
  int32_t sequences_ = 0;
  int64_t now_ = 0;  // virtual time: the count of the account that was last picked
};

}  // namespace sparrow
