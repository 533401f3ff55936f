// The CPU backend: the op table over the kernels of one instruction set and a pool of threads.
#pragma once
#include <string>

#include "../../backend/registry.h"

namespace sparrow {

Result<Backend> open_cpu_backend(const std::string& isa, int threads);

}  // namespace sparrow
