// Whose pages these are: everything that a page's bits depend on.
#pragma once
#include <string>

#include "../model/model.h"
#include "sha256.h"

namespace sparrow {

/// Of the checkpoint in `dir`, the way it is computed (`how`: the engine's options that change bits), and the engine's
/// own code: another build may round otherwise.
Digest model_digest(const Model& model, const std::string& dir, const std::string& how);

}  // namespace sparrow
