// The BF16 backend: activations rounded to BF16 before a product, as the published model computes, int8 index keys,
// BF16 KV rows. What `auto` takes: amxbf16 where the processor has it, avx512bf16 or else avx2bf16.
#pragma once
#include <string>

#include "../../../backend/registry.h"
#include "kernels.h"

namespace sparrow {

/// The kernels of an instruction set, or of the widest for `auto`; null when this processor does not run it.
const SpBf16Kernels* bf16_kernels(const std::string& isa);
/// fp8_kv: KV pages keep latents as E4M3, a multiplier for every 128.
Backend open_bf16_backend(const SpBf16Kernels& kernels, int threads, bool fp8_kv = false);

}  // namespace sparrow
