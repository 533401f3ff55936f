// The op table of the BF16 backend; cheap operations stand here, split by token.
#include "backend_bf16.h"

#ifdef __linux__
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>

#include "../../../backend/decode.h"
#include "pool.h"

namespace sparrow {
namespace bf16 {
namespace {

void embed(void* self, const SpMatrix* table, const int32_t* ids, int32_t n, float* y) {
  const int64_t cols = table->cols;
  pool(self).threads.each(n, [&](int64_t t) {
    if (table->dtype == SP_BF16)
      return pool(self).k.from_bf16(static_cast<const uint16_t*>(table->data) + ids[t] * cols, cols, y + t * cols);
    for (int64_t i = 0; i < cols; i++) y[t * cols + i] = static_cast<float>(weight_at(*table, ids[t], i));
  });
}

/// Tokens an item covers, so that a small step stays on one thread.
constexpr int64_t kTokens = 8;

template <class Body>
void each_token(void* self, int32_t n, const Body& body) {
  pool(self).threads.each(ceil_div(n, kTokens), [&](int64_t i) {
    for (int64_t t = i * kTokens; t < std::min<int64_t>(n, (i + 1) * kTokens); t++) body(t);
  });
}

void rms_norm(void* self, const float* x, int64_t ldx, const float* gain, int32_t n, int32_t dim, float eps, float* y,
              int64_t ldy) {
  each_token(self, n, [&](int64_t t) { pool(self).k.rms_norm_row(x + t * ldx, gain, dim, eps, y + t * ldy); });
}

void layer_norm(void* self, const float* x, const float* gain, const float* bias, int32_t n, int32_t dim, float eps,
                float* y) {
  each_token(self, n, [&](int64_t t) { pool(self).k.layer_norm_row(x + t * dim, gain, bias, dim, eps, y + t * dim); });
}

void rope(void* self, float* x, const int32_t* positions, int32_t n, int32_t heads, int64_t ld_token, int64_t ld_head,
          int32_t dim, const float* table, int32_t half_split) {
  const int32_t half = dim / 2, step = half_split ? 1 : 2, apart = half_split ? half : 1;
  each_token(self, n, [&](int64_t t) {
    const float *c = table + int64_t{positions[t]} * dim, *s = c + half;
    for (int64_t h = 0; h < heads; h++) {
      float* v = x + t * ld_token + h * ld_head;
      for (int32_t i = 0; i < half; i++) {
        const float a = v[i * step], b = v[i * step + apart];
        v[i * step] = a * c[i] - b * s[i];
        v[i * step + apart] = a * s[i] + b * c[i];
      }
    }
  });
}

constexpr int64_t kStep = 8192;

void add(void* self, float* x, const float* y, int64_t count) {
  pool(self).threads.each(ceil_div(count, kStep), [&](int64_t i) {
    const float *row = y + i * kStep, one = 1;
    pool(self).k.add_rows(&row, &one, 1, std::min(kStep, count - i * kStep), x + i * kStep);
  });
}

void swiglu(void* self, float* gate, const float* up, int64_t count) {
  pool(self).threads.each(ceil_div(count, kStep), [&](int64_t i) {
    pool(self).k.swiglu_row(gate + i * kStep, up + i * kStep, std::min(kStep, count - i * kStep));
  });
}

void gate(void* self, const SpGate* g, const float* logits, int32_t n, int32_t* ids, float* weights) {
  static const SpBackend plain = reference_backend();
  pool(self).threads.each(ceil_div(n, kTokens), [&](int64_t i) {
    const int64_t t = i * kTokens;
    plain.gate(nullptr, g, logits + t * g->experts, static_cast<int32_t>(std::min(kTokens, n - t)), ids + t * g->top_k,
               weights + t * g->top_k);
  });
}

void each(void* self, int64_t items, Threads::Call body, const void* context) {
  pool(self).threads.run(items, body, context);
}

}  // namespace
}  // namespace bf16

static bool has_avx512bf16() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni") &&
         __builtin_cpu_supports("avx512vbmi");
}

/// Linux gives the registers, 8 KiB a thread, to a process that asks for them.
static bool has_amx() {
#ifdef __linux__
  unsigned a, b, c, d;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25, kAll = kBf16 | kTile | kInt8;
  if (!has_avx512bf16() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kAll) != kAll) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  static const bool given = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return given;
#else
  return false;
#endif
}

const SpBf16Kernels* bf16_kernels(const std::string& isa) {
  if ((isa == "auto" || isa == sp_bf16_amx.isa) && has_amx()) return &sp_bf16_amx;
  if ((isa == "auto" || isa == sp_bf16_avx512.isa) && has_avx512bf16()) return &sp_bf16_avx512;
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if ((isa == "auto" || isa == sp_bf16_avx2.isa) && has_avx2) return &sp_bf16_avx2;
  return nullptr;
}

Backend open_bf16_backend(const SpBf16Kernels& kernels, int threads, bool fp8_kv) {
  auto owner = std::make_shared<bf16::Pool>(kernels, threads, fp8_kv);
  return {
      {SP_BACKEND_ABI,     "cpu",        kernels.isa,           owner.get(),      bf16::row_bytes, bf16::key_bytes,
       bf16::pack,         bf16::embed,  bf16::rms_norm,        bf16::layer_norm, bf16::matmul,    bf16::matmul_heads,
       bf16::rope,         bf16::add,    bf16::swiglu,          bf16::gate,       bf16::experts,   bf16::cache_write,
       bf16::index_select, bf16::attend, bf16::attend_expanded, bf16::each},
      owner};
}

}  // namespace sparrow
