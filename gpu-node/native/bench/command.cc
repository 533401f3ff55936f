// Runs between two steps of the engine, whose model it times.
#include "command.h"

#include <climits>
#include <cstdio>

#include "../json_fields.h"
#include "bench.h"

namespace sparrow {
namespace {

std::string shown(double value) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.17g", value);
  return digits;
}

std::string shown(const Limits& limits) {
  return "{\"readBytes\":" + shown(limits.read_bytes) + ",\"bf16Flops\":" + shown(limits.bf16_flops) + "}";
}

template <class T>
std::string list(const std::vector<T>& values) {
  std::string out = "[";
  for (size_t i = 0; i < values.size(); i++) {
    if (i) out += ',';
    out += shown(values[i]);
  }
  return out += ']';
}

Result<std::string> time_steps(Engine& engine, const BenchPlan& plan) {
  BenchTimes times;
  Status status;
  engine.between_steps([&] { status = bench(engine.model(), plan, times); });
  if (!status.ok()) return status;
  return "{\"prefill\":" + list(times.prefill) + ",\"decode\":" + list(times.decode) +
         ",\"dense\":" + list(times.dense) + ",\"attend\":" + list(times.attend) + ",\"select\":" + list(times.select) +
         ",\"greedy\":" + list(times.greedy) + ",\"drawn\":" + list(times.drawn) +
         ",\"nucleus\":" + list(times.nucleus) + ",\"limits\":" + list(times.limits) + "}";
}

Result<std::string> time_crossover(Engine& engine, const CrossoverPlan& plan) {
  CrossoverTimes times;
  Status status;
  engine.between_steps([&] { status = crossover(engine.model(), plan, times); });
  if (!status.ok()) return status;
  return "{\"absorbed\":" + list(times.absorbed) + ",\"expanded\":" + list(times.expanded) +
         ",\"absorbedCost\":" + shown(times.absorbed_cost) + ",\"expandedCost\":" + shown(times.expanded_cost) + "}";
}

}  // namespace

Result<std::string> bench_command(Engine& engine, std::string_view json) {
  JsonFields from(json);
  BenchPlan plan;
  int rounds = 0;
  from.integer("depth", plan.depth, 0, INT_MAX);
  from.integer("prefill", plan.prefill, 1, INT_MAX);
  from.integer("decode", plan.decode, 1, INT_MAX);
  from.integer("repeats", plan.repeats, 1, INT_MAX);
  from.integer("batch", plan.batch, 0, INT_MAX);
  from.integer("threads", plan.threads, 0, 256);
  from.flag("dense", plan.dense);
  from.integer("rounds", rounds, 0, INT_MAX);
  if (const Status status = from.finish(); !status.ok()) return status;
  return rounds > 0 ? time_crossover(engine, {plan.depth, plan.prefill, rounds}) : time_steps(engine, plan);
}

}  // namespace sparrow
