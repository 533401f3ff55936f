// op_test FOLDER-OF-COMPONENT-GOLDENS [ISA] [OPERATION]: every operation of the backend table, on every instruction set
// that this processor has, against float64 fixtures and the reference backend. One line each; exit code 1 on failure.
#include <algorithm>
#include <cstdio>
#include <sstream>

#include "ops.h"

namespace sparrow::test {
namespace {

/// Largest |got - want| / (1 + |want|): fp32 arithmetic in any order, with a decade to spare over what was seen; and
/// `loose` for backends that round activations, where the weight is not `exact`.
struct Operation {
  const char* name;
  double strict, loose;
  void (*test)(Check& check);
  bool once = false;  // of the model, not of a backend
};

const Operation kOperations[] = {
    {"embed", 0, 0, test_embed},
    {"rms_norm", 1e-5, 1e-5, test_rms_norm},
    {"layer_norm", 2e-4, 2e-4, test_layer_norm},  // fp32 knows a mean of 1000 only to 6e-5
    {"matmul", 2e-5, 3e-2, test_matmul},
    {"matmul_heads", 1e-5, 3e-2, test_matmul_heads},
    {"rope", 1e-6, 1e-6, test_rope},
    {"add", 0, 0, test_add},
    {"swiglu", 1e-5, 1e-5, test_swiglu},
    {"gate", 1e-5, 1e-5, test_gate},
    {"experts", 1e-4, 1e-1, test_experts},  // a product of two rounded sums, weighed
    {"cache_write", 0, 0, test_cache_write},
    {"index_select", 1e-5, 3e-2, test_index_select},
    {"attend", 1e-4, 6e-2, test_attend},
    {"attend_expanded", 1e-4, 3e-2, test_attend_expanded},
    {"rope_table", 1e-6, 1e-6, test_rope_table, true},
    {"crossover", 0, 0, test_crossover, true},
};

/// Instruction sets that round activations of inexact matrices (to BF16), by name. Any other is held to `strict`.
constexpr const char* kRounding[] = {"amxbf16", "avx512bf16", "avx2bf16"};

/// The names in the error that open_backend gives for an unknown one.
std::vector<std::string> runnable_isas() {
  const Result<Backend> none = open_backend("?", 1);
  const std::string text = none.ok() ? "" : none.status().message, mark = "these do: ";
  const size_t at = text.find(mark);
  std::vector<std::string> out;
  std::istringstream list(at == std::string::npos ? "" : text.substr(at + mark.size()));
  for (std::string name; std::getline(list >> std::ws, name, ',');) {
    if (name != "auto") out.push_back(name);
  }
  return out;
}

Result<Subject> open_subject(const std::string& isa) {
  Subject out{isa, std::ranges::find(kRounding, isa) != std::end(kRounding), {}};
  for (const int threads : {1, 2, 3}) {
    if (isa == "reference" && threads > 1) break;  // it has none
    Result<Backend> backend = open_backend(isa, threads);
    if (!backend.ok()) return backend.status();
    out.by_threads.push_back(std::move(backend.value()));
  }
  return out;
}

/// One line; true when all held.
bool run(const Operation& op, const Subject& subject, const Fixtures& fixtures) {
  Check check(subject, fixtures, op.strict, op.loose);
  op.test(check);
  const bool ok = check.failures().empty() && check.comparisons() > 0;
  std::printf("%-6s %-12s %-13s worst %.1e of %.0e, %lld comparisons\n", ok ? "ok" : "FAILED", subject.isa.c_str(),
              op.name, check.worst(), check.tolerance(true), static_cast<long long>(check.comparisons()));
  for (const std::string& what : check.failures()) std::printf("         %s\n", what.c_str());
  return ok;
}

int main_of(int count, char** arguments) {
  if (count < 2) return std::fprintf(stderr, "usage: op_test FOLDER [ISA] [OPERATION]\n"), 2;
  const Result<Fixtures> fixtures = Fixtures::open(arguments[1]);
  if (!fixtures.ok()) return std::fprintf(stderr, "%s\n", fixtures.status().message.c_str()), 2;
  const std::vector<std::string> isas = runnable_isas();
  if (std::ranges::find(isas, "reference") == isas.end() || std::ranges::find(isas, "scalar") == isas.end())
    return std::fprintf(stderr, "the registry does not name reference and scalar\n"), 2;
  int failed = 0, ran = 0;
  for (const std::string& isa : isas) {
    if (count > 2 && arguments[2] != isa) continue;
    const Result<Subject> subject = open_subject(isa);
    if (!subject.ok()) return std::fprintf(stderr, "%s\n", subject.status().message.c_str()), 2;
    for (const Operation& op : kOperations) {
      if ((count > 3 && std::string(arguments[3]) != op.name) || (op.once && isa != "reference")) continue;
      ran++;
      failed += !run(op, subject.value(), fixtures.value());
    }
  }
  std::printf("%d of %d failed\n", failed, ran);
  return failed || !ran ? 1 : 0;
}

}  // namespace
}  // namespace sparrow::test

int main(int count, char** arguments) {
  return sparrow::test::main_of(count, arguments);
}
