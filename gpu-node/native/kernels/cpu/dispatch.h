// Which kernels this processor can run.
#pragma once
#include <string>

#include "kernels.h"

namespace sparrow {

/// The kernels of `isa`, or of the widest supported set for "auto"; null when this processor lacks it or it is unknown.
const SpKernels* kernels_for(const std::string& isa);

/// Comma-separated names that kernels_for accepts on this processor.
std::string supported_isas();

}  // namespace sparrow
