// The waits that are arithmetic: pace of prefill, fair shares, ageing, checked without an engine.

#include "turn_check.h"

#include "../../../gpu-node/native/scheduler/ageing.h"
#include "../../../gpu-node/native/scheduler/fair.h"
#include "../../../gpu-node/native/scheduler/pace.h"

namespace sparrow::test {
namespace {

constexpr double kDecode = 1e-3;
constexpr int kSteps = 4000, kLearning = 500, kMost = 128;

struct Run {
  double mean = 0;    // of a step, in decode steps
  double tokens = 0;  // of the prompt, a step
};

/// Steps beside decoding sequences, once the pace has settled, on a machine where a token of the prompt takes `token`
/// decode steps.
Run run(double token) {
  StepPace pace;
  Run out;
  for (int i = -kLearning; i < kSteps; i++) {
    const int32_t prefill = pace.prefill_tokens(4, kMost);
    const double took = 1 + prefill * token;
    pace.observe(4, prefill, took * kDecode);
    if (i < 0) continue;
    out.mean += took / kSteps;
    out.tokens += static_cast<double>(prefill) / kSteps;
  }
  return out;
}

}  // namespace

std::string pace_keeps_its_part() {
  if (StepPace().prefill_tokens(0, kMost) != kMost) return "nobody decodes, and a step is not full";
  // Tokens that are nearly free, that fit by the dozen, one by one, and of which a single one takes too long.
  for (const double token : {0.001, 0.1, 1.0, 4.0, 12.0}) {
    const Run r = run(token);
    const double allowed = 1.5 / token < kMost ? 1.5 / token : kMost;
    if (r.mean > 2.6) return "tokens of " + std::to_string(token) + ": a step takes " + std::to_string(r.mean);
    if (r.tokens < 0.6 * allowed) return "tokens of " + std::to_string(token) + ": only " + std::to_string(r.tokens);
  }
  return "";
}

std::string shares_are_fair() {
  FairShares shares;
  const auto begin = [&](const char* account, int64_t weight) {
    shares.enter(account);
    shares.picked(account);
    shares.charge(account, weight);
  };
  begin("quiet", 10);  // goes on running all the time
  for (int i = 0; i < 5; i++) {
    begin("busy", 1000);
    shares.leave("busy", false);
  }
  const int64_t now = shares.served("nobody yet");
  if (now != 4000) return "time stands at " + std::to_string(now);
  // Neither who comes new nor who had little running has credit; nor does who leaves and comes again lose a debt.
  for (const char* account : {"new", "quiet"}) {
    shares.enter(account);
    if (shares.served(account) != now)
      return std::string(account) + " starts at " + std::to_string(shares.served(account));
  }
  shares.enter("busy");
  if (shares.served("busy") != 5000) return "a debt is forgotten";
  // One that waits keeps its claim, however long the others are served.
  shares.picked("busy");
  shares.charge("busy", 9000);
  shares.enter("busy");
  shares.picked("busy");
  shares.enter("new");
  if (shares.served("new") != now) return "one that waits loses its claim";
  // Once nobody is there all begin anew.
  for (int i = 0; i < 2; i++) shares.leave("busy", false);
  for (int i = 0; i < 2; i++) shares.leave("new", true);
  shares.leave("quiet", true);
  shares.leave("quiet", false);
  return shares.served("busy") == 0 ? "" : "counters outlive the sequences";
}

std::string waiting_makes_up() {
  using std::chrono::seconds;
  const bool right = aged(-1, seconds(9), 0) == -1 && aged(-1, seconds(10), 0) == 0 && aged(-2, seconds(20), 1) == 0 &&
                     aged(-1, seconds(1000), 0) == 0 && aged(2, seconds(0), 2) == 2;
  return right ? "" : "priorities do not age as they should";
}

}  // namespace sparrow::test
