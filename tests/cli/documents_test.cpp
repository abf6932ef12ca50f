// SPDX-License-Identifier: MIT
// The documents say what the program does: every option of every verb is in its page and in the
// completion, and every schema is described.
#include "fake_world.hpp"

#include <fstream>
#include <iterator>
#include <regex>
#include <set>

#include <doctest/doctest.h>

using coldchain::testing::run_coldchain;

namespace {

std::string read(const std::string& name) {
  std::ifstream file(std::string(COLDCHAIN_SOURCE_DIR "/") + name);
  REQUIRE_MESSAGE(file.good(), name);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::set<std::string> long_options(const std::string& text) {
  const std::regex option("--[a-z][a-z-]+");
  return {std::sregex_token_iterator(text.begin(), text.end(), option), {}};
}

}  // namespace

TEST_CASE("documents: each verb's page and the completion name all of its options") {
  const std::string completion = read("docs/verbs/coldchain.bash-completion");
  for (const char* verb : {"info", "map", "tree"}) {
    const std::string page = read(std::string("docs/verbs/") + verb + ".md");
    for (const std::string& option : long_options(run_coldchain({verb, "--help"}).out)) {
      CHECK_MESSAGE(page.find(option) != std::string::npos, verb << ' ' << option << " (page)");
      CHECK_MESSAGE(completion.find(option) != std::string::npos,
                    verb << ' ' << option << " (completion)");
    }
  }
}

TEST_CASE("documents: every schema that is written is described") {
  const std::string text = read("docs/json.md");
  for (const char* schema : {"coldchain.tree", "coldchain.forest", "coldchain.map-summary"})
    CHECK_MESSAGE(text.find(schema) != std::string::npos, schema);
}
