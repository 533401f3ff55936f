// f[i] = theta^(-2i/d); YaRN divides the slow ones by `factor`, leaves the fast ones, and blends between.
#include "rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace sparrow {

std::vector<double> rope_frequencies(const ModelConfig& c) {
  const int d = c.qk_rope_head_dim;
  const RopeScaling& y = c.rope_scaling;
  const auto dim_of = [&](double rotations) {
    return d * std::log(y.original_max_position_embeddings / (2 * std::numbers::pi * rotations)) /
           (2 * std::log(c.rope_theta));
  };
  const double low = std::max(std::floor(dim_of(y.beta_fast)), 0.0);
  double high = std::min(std::ceil(dim_of(y.beta_slow)), d - 1.0);
  if (low == high) high += 0.001;
  std::vector<double> out(static_cast<size_t>(d / 2));
  for (int i = 0; i < d / 2; i++) {
    const double f = std::pow(c.rope_theta, -2.0 * i / d);
    const double ramp = y.present ? std::clamp((i - low) / (high - low), 0.0, 1.0) : 0.0;
    out[static_cast<size_t>(i)] = f * (1 - ramp) + f / y.factor * ramp;
  }
  return out;
}

std::vector<float> rope_table(const ModelConfig& c, int positions) {
  const std::vector<double> f = rope_frequencies(c);
  const size_t half = f.size();
  const double size = c.rope_magnitude();
  std::vector<float> out(static_cast<size_t>(positions) * 2 * half);
  for (size_t t = 0; t < static_cast<size_t>(positions); t++) {
    for (size_t i = 0; i < half; i++) {
      const double angle = static_cast<double>(t) * f[i];
      out[t * 2 * half + i] = static_cast<float>(size * std::cos(angle));
      out[t * 2 * half + half + i] = static_cast<float>(size * std::sin(angle));
    }
  }
  return out;
}

}  // namespace sparrow
