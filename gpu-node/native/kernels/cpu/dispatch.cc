// One line an instruction set, in the order in which `auto` tries them.
#include "dispatch.h"

#include "bf16/backend_bf16.h"
#include "ops.h"

const SpKernels sp_kernels_scalar = {"scalar", sp_matmul_scalar, sp_index_scalar, sp_attend_scalar};
const SpKernels sp_kernels_avx2 = {"avx2", sp_matmul_avx2, sp_index_avx2, sp_attend_avx2};
const SpKernels sp_kernels_avx512 = {"avx512", sp_matmul_avx512, sp_index_avx512, sp_attend_avx512};

namespace sparrow {
namespace {

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

struct Choice {
  const SpKernels* kernels;
  bool (*runs_here)();
};

const Choice kChoices[] = {
    {&sp_kernels_avx512, has_avx512},
    {&sp_kernels_avx2, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
    {&sp_kernels_scalar, [] { return true; }},
};

}  // namespace

const SpKernels* kernels_for(const std::string& isa) {
  for (const Choice& choice : kChoices) {
    if ((isa == "auto" || isa == choice.kernels->isa) && choice.runs_here()) return choice.kernels;
  }
  return nullptr;
}

std::string supported_isas() {
  std::string names = "auto, reference";
  for (const char* isa : {"amxbf16", "avx512bf16", "avx2bf16"}) {
    if (bf16_kernels(isa)) names += std::string(", ") + isa;
  }
  for (const Choice& choice : kChoices) {
    if (choice.runs_here()) names += std::string(", ") + choice.kernels->isa;
  }
  return names;
}

}  // namespace sparrow
