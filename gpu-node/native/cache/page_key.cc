// Each name is made from the one before it, so equal names mean equal salts and equal tokens from the start.
#include "page_key.h"

#include "../backend.h"

namespace sparrow {

KeyChain::KeyChain(const std::string& salt) : keys_{Sha256().add_text("sparrow page").add_text(salt).finish()} {}

const PageKey& KeyChain::at(size_t p, const std::vector<int32_t>& tokens) {
  while (keys_.size() <= p + 1) {
    const int32_t* of_page = tokens.data() + (keys_.size() - 1) * SP_PAGE_TOKENS;
    const PageKey& before = keys_.back();
    keys_.push_back(Sha256().add(before.data(), before.size()).add(of_page, SP_PAGE_TOKENS * sizeof(int32_t)).finish());
  }
  return keys_[p + 1];
}

}  // namespace sparrow
