// Files go through the file system on purpose: mapping and reading are part of what is tested.
#include "scratch.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "../../../gpu-node/native/scheduler/probe.h"

namespace sparrow::fuzz {
namespace {
// Enough for whatever a tiny model needs; a context that the config promises and no file bears out is not prepared for.
constexpr int kContext = 256;
constexpr int kTokens = 6, kChunk = 4;
}  // namespace

Scratch::Scratch() {
  std::string pattern = (std::filesystem::temp_directory_path() / "sparrow-fuzz-XXXXXX").string();
  expect(mkdtemp(pattern.data()) != nullptr, "no folder for the files under test");
  dir_ = pattern;
}

Scratch::~Scratch() {
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

void Scratch::write(const std::string& name, std::string_view bytes) const {
  std::ofstream file(dir_ + "/" + name, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  expect(file.good(), "a file under test could not be written");
}

std::string seed(const std::string& path) {
  std::ifstream file(SPARROW_FUZZ_CORPUS "/" + path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  expect(file.good() && !text.str().empty(), path.c_str());
  return text.str();
}

void run_model(const std::string& dir) {
  Result<Model> model = Model::open(dir, "scalar", 1, kContext);
  if (!model.ok()) {
    expect(!model.status().message.empty(), "an error without words");
    expect(model.status().code == Code::kCheckpointInvalid || model.status().code == Code::kUnsupported,
           model.status().message.c_str());
    return;
  }
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < std::min(kTokens, model.value().context()); i++)
    tokens.push_back(i % model.value().config().vocab_size);
  std::vector<ProbeSequence> sequences = {{tokens, kChunk, {}}};
  std::vector<ProbeTap> taps;
  expect(evaluate(model.value(), sequences, false, &taps).ok(), "a loaded model does not run");
}

void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: %s\n", what);
  std::abort();
}

}  // namespace sparrow::fuzz
