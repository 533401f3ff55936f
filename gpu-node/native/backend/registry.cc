// One line a backend. `auto` takes the widest instruction set that this processor has.
#include "registry.h"

#include "../kernels/cpu/backend_cpu.h"

namespace sparrow {

Result<Backend> open_backend(const std::string& isa, int threads) {
  if (isa == "reference") return Backend{reference_backend(), nullptr};
  return open_cpu_backend(isa, threads);
}

}  // namespace sparrow
