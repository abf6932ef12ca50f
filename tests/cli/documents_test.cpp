// SPDX-License-Identifier: MIT
// The documents say what the program does: every option of every verb is in its page and in the
// completion, and every schema is described.
#include "fake_world.hpp"
#include "process.hpp"
#include "temp_folder.hpp"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>

#include <doctest/doctest.h>

using coldchain::testing::run_coldchain;
using coldchain::testing::TempFolder;

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

struct Example {
  std::string command;  // without the prompt
  std::string output;
};

// Indented blocks that begin with a prompt: "    $ coldchain …", then what it prints.
std::vector<Example> examples_of(const std::string& page) {
  std::vector<Example> examples;
  std::istringstream lines(page);
  bool inside = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.empty())
      continue;  // what comes next is indented, if the output goes on
    inside = line.starts_with("    ") && (inside || line.starts_with("    $ "));
    if (!inside)
      continue;
    if (line.starts_with("    $ "))
      examples.push_back({line.substr(6), ""});
    else
      examples.back().output += line.substr(4) + "\n";
  }
  return examples;
}

std::string without_empty_lines(const std::string& text) {
  std::istringstream lines(text);
  std::string out;
  for (std::string line; std::getline(lines, line);)
    out += line.empty() ? "" : line + "\n";
  return out;
}

// Storage in use is the file system's word: it is left out.
std::string without_allocation(const std::string& printed) {
  const std::string text =
      std::regex_replace(printed, std::regex("[0-9]+ bytes of storage"), "bytes of storage");
  const std::string title = text.substr(0, text.find('\n'));
  const std::size_t column = title.find("ALLOCATION");
  if (column == std::string::npos)
    return text;
  std::istringstream lines(text);
  std::string out;
  for (std::string line; std::getline(lines, line);) {
    // Columns are characters, lines of the tree are three bytes each.
    std::size_t extra = 0;
    for (const char c : line)
      extra += (static_cast<unsigned char>(c) & 0xc0) == 0x80 ? 1 : 0;
    if (line.size() > column + extra + 10)
      line.erase(column + extra, 10);
    out += line + "\n";
  }
  return out;
}

}  // namespace

TEST_CASE("documents: the examples print what they say they print") {
  const TempFolder folder;
  REQUIRE(
      coldchain::testing::run_in(folder.path(), std::string(COLDCHAIN_MAKE_IMAGE) + " demo demo")
          .status == 0);
  std::size_t seen = 0;
  for (const char* name :
       {"README.md", "docs/verbs/tree.md", "docs/verbs/map.md", "docs/verbs/check.md",
        "docs/verbs/layout.md", "docs/verbs/repair.md", "docs/verbs/pull.md", "docs/verbs/deps.md",
        "docs/verbs/measure.md", "docs/verbs/commit.md"}) {
    for (const Example& example : examples_of(read(name))) {
      CAPTURE(name);
      REQUIRE(example.command.starts_with("coldchain "));
      const bool is_outside = example.command.ends_with(" demo");
      const auto ran = coldchain::testing::run_in(
          is_outside ? folder.path() : folder / "demo",
          "LC_ALL=C.UTF-8 " COLDCHAIN_PROGRAM + example.command.substr(9));
      CHECK(without_allocation(without_empty_lines(ran.out)) == without_allocation(example.output));
      ++seen;
    }
  }
  CHECK(seen == 16);
}

TEST_CASE("documents: each verb's page and the completion name all of its options") {
  const std::string completion = read("docs/verbs/coldchain.bash-completion");
  for (const char* verb : {"check", "commit", "deps", "info", "layout", "map", "measure", "plan",
                           "pull", "rebase", "repair", "resume", "tree", "undo"}) {
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
  for (const char* schema : {"coldchain.tree", "coldchain.forest", "coldchain.map-summary",
                             "coldchain.layout", "coldchain.pull", "coldchain.commit"})
    CHECK_MESSAGE(text.find(schema) != std::string::npos, schema);
}
