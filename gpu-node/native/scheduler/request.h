// What crosses the border to JavaScript as JSON: options and requests in, statistics out. A new field is a line here.
#pragma once
#include <string>
#include <string_view>

#include "engine.h"

namespace sparrow {

/// Everything but token_bytes. Errors: bad_argument, naming the field.
Result<EngineOptions> parse_options(std::string_view json);

/// Everything but tokens and stop strings. Errors: bad_argument, naming the field.
Result<Request> parse_request(std::string_view json);

/// {"running":1, ...}, names as in EngineStats of engine.ts.
std::string to_json(const EngineStats& stats);

}  // namespace sparrow
