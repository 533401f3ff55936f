// The bench as JavaScript asks for it: a plan in JSON, times in JSON.
#pragma once
#include <string>
#include <string_view>

#include "../scheduler/engine.h"

namespace sparrow {

/// {depth, prefill, decode, repeats, batch, threads, dense} -> {prefill, decode, dense, limits}, one a repeat; with
/// `rounds` over 0 {depth, prefill, rounds} -> {absorbed, expanded, absorbedCost, expandedCost}. Blocks.
Result<std::string> bench_command(Engine& engine, std::string_view plan);

}  // namespace sparrow
