// An account is forgotten once the others have caught up with it: it would start there anyway.
#include "fair.h"

#include <algorithm>

namespace sparrow {

void FairShares::enter(const std::string& account) {
  Account& a = accounts_[account];
  if (a.waiting++ == 0) a.served = std::max(a.served, now_);
  a.sequences++;
  sequences_++;
}

void FairShares::leave(const std::string& account, bool waited) {
  Account& a = accounts_[account];
  a.sequences--;
  a.waiting -= waited;
  if (--sequences_ > 0) return;
  accounts_.clear();
  now_ = 0;
}

void FairShares::picked(const std::string& account) {
  Account& picked = accounts_[account];
  picked.waiting--;
  now_ = std::max(now_, picked.served);
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
