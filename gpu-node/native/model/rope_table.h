// Cosines and sines of every position, built in double: plain RoPE or YaRN, decided by the config alone.
#pragma once
#include <vector>

#include "config.h"

namespace sparrow {

/// Angular frequencies (rope / 2), YaRN's ramp applied. Source: deepseek-v3.2 section on YaRN; Peng et al. 2023, eq.
/// 13-17.
std::vector<double> rope_frequencies(const ModelConfig& config);

/// (positions, rope): rope/2 cosines, then rope/2 sines, a row a position, times the config's rope_magnitude.
std::vector<float> rope_table(const ModelConfig& config, int positions);

}  // namespace sparrow
