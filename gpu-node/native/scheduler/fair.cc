// An account is forgotten once the others have caught up with it: it would start there anyway.
#include "fair.h"

#include <algorithm>

namespace sparrow {

void FairShares::enter(const std::string& account) {
  Account& a = accounts_[account];
  if (a.sequences++ == 0) a.served = std::max(a.served, now_);
  sequences_++;
}

void FairShares::leave(const std::string& account) {
  accounts_[account].sequences--;
  if (--sequences_ > 0) return;
  accounts_.clear();
  now_ = 0;
}

void FairShares::picked(const std::string& account) {
  now_ = std::max(now_, served(account));
  std::erase_if(accounts_, [this](const auto& a) { return a.second.sequences == 0 && a.second.served <= now_; });
}

void FairShares::charge(const std::string& account, int64_t weight) {
  accounts_[account].served += weight;
}

int64_t FairShares::served(const std::string& account) const {
  const auto found = accounts_.find(account);
  return found == accounts_.end() ? now_ : found->second.served;
}

}  // namespace sparrow
