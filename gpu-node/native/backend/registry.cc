// One line a backend. `auto` takes the widest instruction set that this processor has.
#include "registry.h"

#include "../kernels/cpu/backend_cpu.h"
#include "../kernels/cpu/bf16/backend_bf16.h"

namespace sparrow {

Result<Backend> open_backend(const std::string& isa, int threads, const std::string& kv) {
  if (kv != "auto" && kv != "fp8") return error(Code::kBadArgument, "kv: '" + kv + "' is neither auto nor fp8");
  if (const SpBf16Kernels* kernels = bf16_kernels(isa)) return open_bf16_backend(*kernels, threads, kv == "fp8");
  if (kv == "fp8")
    return error(Code::kBadArgument, "kv: fp8 needs the instruction set amxbf16, avx512bf16 or avx2bf16");
  if (isa == "reference") return Backend{reference_backend(), nullptr};
  return open_cpu_backend(isa, threads);
}

}  // namespace sparrow
