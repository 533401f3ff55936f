// Recursive descent over a string_view; `at_` never passes the end.
#include "json.h"

#include <cstdint>
#include <cstdlib>

namespace sparrow {
namespace {

constexpr int kDepthMax = 32;
// Twelve times what the index of DeepSeek-V3.2 holds; some 200 MB when every one of them is used.
constexpr size_t kValuesMax = size_t{1} << 20;

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<Json> run() {
    Json root;
    if (!value(root, 0)) return fail();
    skip_space();
    if (at_ != text_.size()) {
      what_ = "text after the end";
      return fail();
    }
    return root;
  }

 private:
  Status fail() const { return invalid("JSON: " + std::string(what_) + " at byte " + std::to_string(at_)); }

  bool wrong(const char* what) {
    what_ = what;
    return false;
  }

  void skip_space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) {
      at_++;
    }
  }

  bool take(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    at_++;
    return true;
  }

  bool word(std::string_view w) {
    if (text_.substr(at_, w.size()) != w) return wrong("unknown word");
    at_ += w.size();
    return true;
  }

  bool value(Json& out, int depth) {
    if (depth > kDepthMax) return wrong("nesting too deep");
    if (++values_ > kValuesMax) return wrong("too many values");
    skip_space();
    if (at_ >= text_.size()) return wrong("unexpected end");
    switch (text_[at_]) {
      case '{':
        return object(out, depth);
      case '[':
        return array(out, depth);
      case '"':
        out.kind = Json::Kind::kString;
        return string(out.string);
      case 't':
        out.kind = Json::Kind::kBool;
        out.boolean = true;
        return word("true");
      case 'f':
        out.kind = Json::Kind::kBool;
        return word("false");
      case 'n':
        return word("null");
      default:
        return number(out);
    }
  }

  bool object(Json& out, int depth) {
    out.kind = Json::Kind::kObject;
    at_++;
    if (take('}')) return true;
    do {
      skip_space();
      std::string key;
      if (at_ >= text_.size() || text_[at_] != '"') return wrong("expected a key");
      if (!string(key)) return false;
      if (!take(':')) return wrong("expected ':'");
      auto [slot, fresh] = out.fields.try_emplace(std::move(key));
      if (!fresh) return wrong("repeated key");
      if (!value(slot->second, depth + 1)) return false;
    } while (take(','));
    return take('}') || wrong("expected '}'");
  }

  bool array(Json& out, int depth) {
    out.kind = Json::Kind::kArray;
    at_++;
    if (take(']')) return true;
    do {
      out.items.emplace_back();
      if (!value(out.items.back(), depth + 1)) return false;
    } while (take(','));
    return take(']') || wrong("expected ']'");
  }

  bool hex4(uint32_t& out) {
    if (text_.size() - at_ < 4) return wrong("short \\u escape");
    out = 0;
    for (int i = 0; i < 4; i++) {
      const char c = text_[at_++];
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) return wrong("bad \\u escape");
      out = out * 16 + static_cast<uint32_t>(digit);
    }
    return true;
  }

  bool escape(std::string& out) {
    if (at_ >= text_.size()) return wrong("unexpected end");
    constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
    const char c = text_[at_++];
    if (const size_t i = kFrom.find(c); i != std::string_view::npos) {
      out += kTo[i];
      return true;
    }
    uint32_t code = 0, low = 0;
    if (c != 'u' || !hex4(code)) return wrong("bad escape");
    if (code >= 0xD800 && code < 0xDC00) {
      if (text_.substr(at_, 2) != "\\u") return wrong("lone surrogate");
      at_ += 2;
      if (!hex4(low)) return false;
      if (low < 0xDC00 || low > 0xDFFF) return wrong("lone surrogate");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    if (code >= 0xDC00 && code <= 0xDFFF) return wrong("lone surrogate");
    append_utf8(out, code);
    return true;
  }

  bool string(std::string& out) {
    at_++;
    while (at_ < text_.size() && text_[at_] != '"') {
      if (static_cast<unsigned char>(text_[at_]) < 0x20) return wrong("control character in a string");
      if (text_[at_] == '\\') {
        at_++;
        if (!escape(out)) return false;
      } else {
        out += text_[at_++];
      }
    }
    if (at_ >= text_.size()) return wrong("unterminated string");
    at_++;
    return true;
  }

  bool number(Json& out) {
    const size_t end = text_.find_first_not_of("+-0123456789.eE", at_);
    const std::string digits(text_.substr(at_, (end == std::string_view::npos ? text_.size() : end) - at_));
    char* stop = nullptr;
    out.kind = Json::Kind::kNumber;
    out.number = std::strtod(digits.c_str(), &stop);
    if (digits.empty() || digits.size() > 40 || *stop != '\0') return wrong("bad number");
    at_ += digits.size();
    return true;
  }

  std::string_view text_;
  size_t at_ = 0, values_ = 0;
  const char* what_ = "";
};

}  // namespace

const Json* Json::find(std::string_view name) const {
  const auto found = fields.find(name);
  return found == fields.end() ? nullptr : &found->second;
}

Result<Json> parse_json(std::string_view text) {
  return Parser(text).run();
}

}  // namespace sparrow
