// The BF16 backend: activations rounded to BF16 before a product, as the published model computes, int8 index keys,
// BF16 KV rows. The fastest on processors that have AVX-512 BF16.
#pragma once
#include "../../../backend/registry.h"

namespace sparrow {

bool has_avx512bf16();
/// fp8_kv: KV pages keep latents as E4M3, a multiplier for every 128.
Backend open_bf16_backend(int threads, bool fp8_kv = false);

}  // namespace sparrow
