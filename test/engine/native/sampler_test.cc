// sampler_test: every processor against the slow twin, draws against the probabilities they must have,
// log-probabilities, stop strings; and whose turn it is. One line each; exit code 1 on failure.
#include <cstdio>
#include <random>
#include <string>

#include "../../../gpu-node/native/scheduler/logprobs.h"
#include "../../../gpu-node/native/scheduler/softmax.h"
#include "../../../gpu-node/native/scheduler/stop_match.h"
#include "sampler_twin.h"
#include "turn_check.h"

namespace sparrow::test {
namespace {

using Random = std::mt19937_64;

double uniform(Random& random, double least, double most) {
  return std::uniform_real_distribution<double>(least, most)(random);
}

int32_t below(Random& random, int32_t n) {
  return std::uniform_int_distribution<int32_t>(0, n - 1)(random);
}

/// Logits on a coarse grid, so that equal ones are common.
std::vector<float> make_logits(Random& random, int32_t n) {
  std::vector<float> out;
  for (int32_t i = 0; i < n; i++) out.push_back(static_cast<float>(std::round(uniform(random, -12, 12)) / 2));
  return out;
}

/// As a model has them: few are equal, the likeliest stand out.
std::vector<float> make_fine_logits(Random& random, int32_t n) {
  std::normal_distribution<float> normal(0, 4);
  std::vector<float> out;
  for (int32_t i = 0; i < n; i++) out.push_back(normal(random));
  return out;
}

Draw make_draw(Random& random, int32_t n) {
  Draw d;
  d.allowed = n - below(random, 3);
  const int32_t length = below(random, 40);
  d.prompt = length ? below(random, length) : 0;
  for (int32_t i = 0; i < length; i++) d.tokens.push_back(below(random, d.allowed));
  d.sampling.temperature = uniform(random, 0.2, 3);
  d.sampling.seed = random();
  return d;
}

/// One setting each, and all of them together.
struct Processor {
  const char* name;
  void (*set)(Draw& d, Random& random);
};

void mask(Draw& d, Random& random) {
  d.mask.assign(static_cast<size_t>(d.allowed), false);
  for (int32_t i = 0; i < 4; i++) d.mask[static_cast<size_t>(below(random, d.allowed))] = true;
}

void ban(Draw& d, Random& random) {
  for (int32_t i = 0; i < 3; i++) d.banned.push_back(below(random, d.allowed));
}

void bias(Draw& d, Random& random) {
  for (int32_t id = 0; id < d.allowed; id += 1 + below(random, 6))
    d.sampling.bias.emplace_back(id, uniform(random, -9, 9));
}

void all(Draw& d, Random& random);

const Processor kProcessors[] = {
    {"temperature", [](Draw&, Random&) {}},
    {"top_k", [](Draw& d, Random& r) { d.sampling.top_k = 1 + below(r, 50); }},
    {"top_p", [](Draw& d, Random& r) { d.sampling.top_p = below(r, 4) ? uniform(r, 0, 1) : 0; }},
    {"min_p", [](Draw& d, Random& r) { d.sampling.min_p = below(r, 4) ? uniform(r, 0, 1) : 1; }},
    {"frequency", [](Draw& d, Random& r) { d.sampling.frequency = uniform(r, -2, 2); }},
    {"presence", [](Draw& d, Random& r) { d.sampling.presence = uniform(r, -2, 2); }},
    {"repetition", [](Draw& d, Random& r) { d.sampling.repetition = uniform(r, 0.5, 2); }},
    {"bias", bias},
    {"mask", mask},
    {"ban", ban},
    {"all", all},
};

void all(Draw& d, Random& random) {
  for (const Processor& processor : kProcessors)
    if (processor.set != all) processor.set(d, random);
}

std::string equals_twin(const Processor& processor, int rounds, int32_t least, int32_t most) {
  Random random(7);
  for (int round = 0; round < rounds; round++) {
    const int32_t n = least + below(random, most - least);
    const std::vector<float> logits = round % 2 ? make_fine_logits(random, n) : make_logits(random, n);
    Draw d = make_draw(random, n);
    processor.set(d, random);
    if (drawn(logits, d) != twin(logits, d)) return "another token";
    d.sampling.temperature = 0;
    const std::vector<double> values = adjusted(logits, d);
    if (drawn(logits, d) != std::max_element(values.begin(), values.end()) - values.begin()) return "greedy differs";
  }
  return "";
}

/// Chi-square of many seeds against the twin's probabilities; the bound is passed by chance once in ten thousand runs.
std::string frequencies(const Processor& processor) {
  Random random(11);
  for (int round = 0; round < 3; round++) {
    const std::vector<float> logits = make_logits(random, 24);
    Draw d = make_draw(random, 24);
    processor.set(d, random);
    const std::vector<double> p = probabilities(adjusted(logits, d), d.sampling);
    constexpr int kDraws = 20000;
    std::vector<int> counts(p.size());
    for (int i = 0; i < kDraws; i++) {
      d.sampling.seed = static_cast<uint64_t>(i);
      counts[static_cast<size_t>(drawn(logits, d))]++;
    }
    double chi = 0, rare = 0, rare_count = 0;
    int cells = 0;
    const auto add = [&](double expected, double count) {
      if (expected > 0) chi += (count - expected) * (count - expected) / expected, cells++;
    };
    for (size_t i = 0; i < p.size(); i++) {
      if (p[i] == 0 && counts[i]) return "a token of no probability was drawn";
      if (p[i] * kDraws < 8)
        rare += p[i] * kDraws, rare_count += counts[i];
      else
        add(p[i] * kDraws, counts[i]);
    }
    if (rare >= 8) add(rare, rare_count);
    // Wilson and Hilferty: a chi-square's cube root is nearly normal; 3.8 standard deviations.
    const double f = std::max(1, cells - 1), limit = f * std::pow(1 - 2 / (9 * f) + 3.8 * std::sqrt(2 / (9 * f)), 3);
    if (chi > limit) return "chi-square " + std::to_string(chi) + " over " + std::to_string(limit);
  }
  return "";
}

/// Draws of one seed at successive positions are as good as those of different seeds.
std::string positions() {
  const std::vector<float> logits(16, 1.0f);
  Draw d{.sampling = {1, 1, 42}, .tokens = {}, .prompt = 0, .allowed = 16, .banned = {}, .mask = {}};
  std::vector<int> counts(256);
  int32_t last = drawn(logits, d);
  for (int i = 0; i < 25600; i++) {
    d.tokens.push_back(0);
    if (d.tokens.size() > 64) d.tokens.clear(), d.sampling.seed++;
    const int32_t next = drawn(logits, d);
    counts[static_cast<size_t>(last * 16 + next)]++;
    last = next;
  }
  double chi = 0;
  for (const int count : counts) chi += (count - 100.0) * (count - 100.0) / 100.0;
  return chi < 255 + 4 * std::sqrt(2 * 255.0) ? "" : "pairs of draws are not independent: " + std::to_string(chi);
}

std::string refusals() {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const double temperature : {0.0, 1.0}) {
    Draw d{.sampling = {temperature, 1, 1}, .tokens = {}, .prompt = 0, .allowed = 3, .banned = {}, .mask = {}};
    if (drawn({1, nan, 2}, d) != kNotFinite) return "NaN passes";
    if (drawn({-inf, -inf, -inf}, d) != kNotFinite) return "nothing finite passes";
    if (drawn({1, inf, 2}, d) != kNotFinite) return "infinity passes";
    if (drawn({-inf, 3, -inf, nan}, d) != 1) return "padding takes part";
    d.mask = {false, false, false};
    if (drawn({1, 2, 3}, d) != kNothingAllowed) return "an empty mask passes";
    d.mask = {false, false, true};
    d.banned = {2, 2};
    if (drawn({1, 2, 3}, d) != 2) return "a ban that leaves nothing still counts";
    d.mask = {true, false, true};
    if (drawn({1, 2, 3}, d) != 0) return "a ban does not count";
  }
  return "";
}

/// Against the library's own, from the largest down to nothing; one value is the same however many are around it.
std::string weights() {
  std::vector<double> values = {0, -0.0, -1e-9, -707.6, -707.9, -1e6, -std::numeric_limits<double>::infinity()};
  for (double x = -0.001; x > -720; x *= 1.003) values.push_back(x);
  values.resize(kSoftmaxBlock - 3);
  Weights all, one;
  for (const double temperature : {1.0, 0.3, 7.0}) {
    const Softmax softmax = {.top = 2, .temperature = temperature};
    std::vector<double> shifted;
    for (const double x : values) shifted.push_back(x * temperature + 2);
    weigh<double>(softmax, shifted, all);
    for (size_t i = 0; i < values.size(); i++) {
      const double x = (shifted[i] - 2) / temperature, want = std::exp(x) < 0x1p-1021 ? 0 : std::exp(x);
      if (std::abs(all[i] - want) > 4e-16 * (4 - x) * want) return "e to the " + std::to_string(x);
      weigh<double>(softmax, std::span(shifted).subspan(i, 1), one);
      if (one[0] != all[i]) return "alone it is another";
    }
  }
  weigh<double>({.top = 3, .temperature = 1e-320}, std::vector<double>{3, 2.999, -3}, all);
  return all[0] == 1 && all[1] == 0 && all[2] == 0 ? "" : "hardly any temperature";
}

std::string extremes() {
  Random random(13);
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (int round = 0; round < 300; round++) {
    std::vector<float> values = make_logits(random, 1 + below(random, 2000));
    const auto n = static_cast<int32_t>(values.size());
    if (largest<float>(values) != std::max_element(values.begin(), values.end()) - values.begin())
      return "another is the largest";
    values[static_cast<size_t>(below(random, n))] = -inf;
    for (const float odd : {nan, -nan, inf}) {
      std::vector<float> with = values;
      with[static_cast<size_t>(below(random, n))] = odd;
      if (largest<float>(with) != -1) return "of what is not finite there is a largest";
    }
  }
  if (largest<float>(std::vector<float>{-1, -0.0f, 0.0f}) != 1) return "two zeros are not equal";
  return largest<float>({}) == -1 ? "" : "of nothing there is a largest";
}

std::string logprobs(int rounds, int32_t least) {
  Random random(3);
  for (int round = 0; round < rounds; round++) {
    const int32_t n = least + below(random, 40), allowed = n - below(random, 4), top = below(random, 21);
    const std::vector<float> logits = round % 2 ? make_fine_logits(random, n) : make_logits(random, n);
    double sum = 0;
    for (int32_t i = 0; i < allowed; i++) sum += std::exp(static_cast<double>(logits[static_cast<size_t>(i)]));
    std::vector<int32_t> order(static_cast<size_t>(allowed));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    order.resize(static_cast<size_t>(top));
    const int32_t token = below(random, allowed);
    order.insert(order.begin(), token);
    const auto got = logprobs_of(logits, allowed, token, top);
    if (got.size() != order.size()) return "other tokens";
    for (size_t i = 0; i < got.size(); i++) {
      const double want = logits[static_cast<size_t>(order[i])] - std::log(sum);
      if (got[i].id != order[i]) return "other tokens";
      if (std::abs(got[i].logprob - want) > 1e-12) return "other values";
    }
  }
  return "";
}

/// Against a search in the whole text: the token after which it first holds a stop string begun behind the armed point.
std::string stop_strings() {
  Random random(5);
  const std::string pieces[] = {"a", "b", "ab", "\xC3", "\xA9", "\xC3\xA9", "", "\xF0\x9F", "\x8E\x89", "ba"};
  const std::vector<std::string> stops[] = {{"abb"}, {"ab\xC3\xA9", "bb"}, {"\xF0\x9F\x8E\x89"}, {"\xC3\xA9"}};
  for (int round = 0; round < 4000; round++) {
    const auto& wanted = stops[below(random, 4)];
    const int32_t least = below(random, 6);
    StopMatch match;
    std::string text;
    size_t from = 0;  // where whole characters end when the least number is reached
    for (int32_t i = 1; i <= 20; i++) {
      const std::string& piece = pieces[below(random, 10)];
      text += piece;
      const bool armed = i > least;
      if (!armed) {
        from = text.size();
        for (size_t back = 1; back <= 3 && back <= text.size(); back++) {
          const auto byte = static_cast<unsigned char>(text[text.size() - back]);
          if ((byte == 0xC3 && back < 2) || (byte == 0xF0 && back < 4)) from = text.size() - back;
          if ((byte & 0xC0) != 0x80) break;
        }
      }
      bool expected = false;
      for (const std::string& stop : wanted) expected |= armed && text.find(stop, from) != std::string::npos;
      if (match.push(piece, wanted, armed) != expected) return "after " + text;
      if (expected) break;
    }
  }
  return "";
}

int main_of() {
  int failed = 0;
  const auto tell = [&](const std::string& name, const std::string& wrong) {
    failed += !wrong.empty();
    std::printf("%s %s%s%s\n", wrong.empty() ? "ok    " : "FAILED", name.c_str(), wrong.empty() ? "" : ": ",
                wrong.c_str());
  };
  for (const Processor& processor : kProcessors) {
    tell(std::string(processor.name) + " equals the twin", equals_twin(processor, 400, 5, 65));
    tell(std::string(processor.name) + " does in a large vocabulary", equals_twin(processor, 40, 500, 3000));
    tell(std::string(processor.name) + " draws as often as it should", frequencies(processor));
  }
  tell("positions are independent", positions());
  tell("refusals", refusals());
  tell("weights", weights());
  tell("the largest", extremes());
  tell("log-probabilities", logprobs(300, 25));
  tell("log-probabilities in a large vocabulary", logprobs(20, 2000));
  tell("stop strings", stop_strings());
  tell("pace of prefill", pace_keeps_its_part());
  tell("fair shares", shares_are_fair());
  tell("ageing", waiting_makes_up());
  return failed > 0;
}

}  // namespace
}  // namespace sparrow::test

int main() {
  return sparrow::test::main_of();
}
