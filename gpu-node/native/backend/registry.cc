// One line a backend. `auto` takes the widest instruction set that this processor has.
#include "registry.h"

#include "../kernels/cpu/backend_cpu.h"
#include "../kernels/cpu/bf16/backend_bf16.h"

namespace sparrow {

Result<Backend> open_backend(const std::string& isa, int threads) {
  if (isa == "reference") return Backend{reference_backend(), nullptr};
  if ((isa == "avx512bf16" || isa == "auto") && has_avx512bf16()) return open_bf16_backend(threads);
  return open_cpu_backend(isa, threads);
}

}  // namespace sparrow
