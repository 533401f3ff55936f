// What the fuzz targets share: a folder of their own for the files under test, the sound seed, and a model opened and
// run.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sparrow::fuzz {

/// A folder below TMPDIR that goes away with the program.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  const std::string& dir() const { return dir_; }
  void write(const std::string& name, std::string_view bytes) const;

 private:
  std::string dir_;
};

/// A file of the corpus, by its path below it; ends the program when it is missing.
std::string seed(const std::string& path);

/// Opens `dir` as the engine does and, when it is sound, computes a few tokens, selection included. An error must name
/// its cause; anything else is for the sanitizers to say.
void run_model(const std::string& dir);

/// Ends the program, so that the fuzzer keeps the input.
void expect(bool holds, const char* what);

}  // namespace sparrow::fuzz
