// SPDX-License-Identifier: MIT
// Every option of every verb gets wrong values. The options come from the program itself, so that a
// new one is tested, too.
#include "app.hpp"
#include "fake_world.hpp"
#include "temp_folder.hpp"

#include <memory>
#include <regex>

#include <CLI/CLI.hpp>
#include <doctest/doctest.h>

using namespace coldchain;
using testing::Ran;
using testing::run_coldchain;
using testing::TempFolder;

namespace {

using Words = std::vector<std::string>;

const std::string huge_number(309, '9');

struct Verb {
  Words command;  // {"plan", "pull"}
  const CLI::App* app;
};

void collect(const CLI::App& app, const Words& command, std::vector<Verb>& verbs) {
  const std::vector<const CLI::App*> below = app.get_subcommands(nullptr);
  if (below.empty())
    verbs.push_back({command, &app});
  for (const CLI::App* verb : below) {
    Words longer = command;
    longer.push_back(verb->get_name());
    collect(*verb, longer, verbs);
  }
}

class Program {
 public:
  Program() { collect(*app_, {}, verbs); }

  std::vector<Verb> verbs;

 private:
  testing::FakeWorld world_;
  int status_ = 0;
  std::unique_ptr<CLI::App> app_ = cli::make_app(world_, status_);
};

bool is_flag(const CLI::Option& option) {
  return option.get_expected_max() == 0;
}

std::string joined(const Words& words) {
  std::string text;
  for (const std::string& word : words)
    text += word.substr(0, 40) + " ";
  return text;
}

// Nothing of CLI11, and no numbers that nobody gave.
void check_message(const Ran& ran, const Words& command) {
  CAPTURE(joined(command));
  CAPTURE(ran.err);
  // The value that was given may be shown, or its beginning.
  const std::string text = std::regex_replace(ran.err, std::regex("9{20,}"), "");
  for (const char* internal :
       {"->", "{", "INT", "FLOAT", "TEXT", "BOOLEAN", "[Option", "not in ", " is required",
        "required ", "Could not convert", "not an allowed value", "excludes ", "flag override",
        "not expected", "should not see", "Run with --help"})
    CHECK_MESSAGE(text.find(internal) == std::string::npos, internal);
  CHECK_FALSE(std::regex_search(text, std::regex("[0-9]{21}")));
  CHECK((ran.status == 0 || !ran.out.empty() || text.find("coldchain: ") != std::string::npos));
}

Ran run_checked(const Words& command) {
  Ran ran = run_coldchain(command);
  check_message(ran, command);
  return ran;
}

Words with(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

// A file that is not there for each operand, so that nothing is changed.
Words operands_of(const CLI::App& verb, const TempFolder& folder) {
  Words operands;
  for (const CLI::Option* option : verb.get_options()) {
    if (option->get_positional())
      operands.push_back(folder / "none");
  }
  return operands;
}

}  // namespace

TEST_CASE("options: a wrong value of any option is named in our words") {
  const TempFolder folder;
  const Program program;
  std::size_t seen = 0;
  for (const Verb& verb : program.verbs) {
    const Words operands = operands_of(*verb.app, folder);
    for (const CLI::Option* option : verb.app->get_options()) {
      const std::string name = option->get_name();
      if (option->get_positional() || name == "--help")
        continue;
      ++seen;
      if (is_flag(*option)) {
        const Ran ran = run_checked(with(verb.command, with({name, name}, operands)));
        CHECK(ran.err.find(name + " takes no value") == std::string::npos);
        if (name.starts_with("--"))
          CHECK(run_checked(with(verb.command, with({name + "=nonsense"}, operands)))
                    .err.find(name + " takes no value") != std::string::npos);
        continue;
      }
      for (const std::string& value :
           {std::string("nonsense"), std::string(), huge_number, std::string("-1")})
        (void)run_checked(with(verb.command, with({name, value, name, value}, operands)));
      CHECK(run_checked(with(verb.command, {name})).err.find(name + " needs a value; '") !=
            std::string::npos);
    }
  }
  CHECK(seen > 200);
}

TEST_CASE("options: operands that are missing or too many are named in our words") {
  const TempFolder folder;
  const Program program;
  for (const Verb& verb : program.verbs) {
    const Ran missing = run_checked(verb.command);
    CHECK(missing.status == 1);
    const Words many(5, folder / "none");
    CHECK(run_checked(with(verb.command, many)).status == 1);
  }
  CHECK(run_coldchain({"info"}).err ==
        "coldchain: IMAGE is missing; 'coldchain info --help' lists its options\n");
  CHECK(run_coldchain({"plan", "pull"}).err ==
        "coldchain: IMAGE is missing; 'coldchain plan pull --help' lists its options\n");
}

TEST_CASE("options: the message names the option, the value and what is accepted") {
  const auto err_of = [](const Words& command) {
    const Ran ran = run_coldchain(command);
    CHECK(ran.status == 1);
    CHECK(ran.out.empty());
    return ran.err;
  };
  const std::string help_of_check = " 'coldchain check --help' lists its options\n";
  CHECK(err_of({"check", "--jobs", "0", "x"}) ==
        "coldchain: --jobs: '0' is not a number from 1 to 64." + help_of_check);
  CHECK(err_of({"check", "--jobs", huge_number, "x"}) ==
        "coldchain: --jobs: '" + huge_number.substr(0, 40) + "…' is not a number from 1 to 64." +
            help_of_check);
  CHECK(err_of({"check", "--output", "jsno", "x"}) ==
        "coldchain: --output: 'jsno' is none of: human, json, sarif, junit. Did you mean 'json'?" +
            help_of_check);
  CHECK(err_of({"check", "--list=all", "x"}) ==
        "coldchain: --list takes no value;" + help_of_check);
  CHECK(err_of({"check", "x", "--jobs"}) == "coldchain: --jobs needs a value;" + help_of_check);
  CHECK(err_of({"map", "--layer", "-1", "x"}) ==
        "coldchain: --layer: '-1' is not a number from 0 to 1023. 'coldchain map --help' lists "
        "its options\n");
  CHECK(err_of({"map", "--summary", "--provenance", "x"})
            .ends_with(" exclude each other; 'coldchain map --help' lists its options\n"));
  CHECK(err_of({"commit", "--bitmaps", "2", "x"}) ==
        "coldchain: --bitmaps: '2' is none of: qemu, merge, drop. 'coldchain commit --help' lists "
        "its options\n");
}

TEST_CASE("options: an empty value does not lift a rule, and takes no operand in its place") {
  for (const std::string option : {"--root", "--sysroot"}) {
    for (const Words& words : {Words{option, ""}, Words{option + "="}}) {
      const Ran ran = run_coldchain(with({"info"}, with(words, {"/dev/null"})));
      CHECK(ran.status == 1);
      CHECK(ran.err == "coldchain: " + option +
                           ": the value is empty. 'coldchain info --help' lists its options\n");
    }
  }
  CHECK(run_coldchain({"check", "-r", "", "x"}).err ==
        "coldchain: -r: the value is empty. 'coldchain check --help' lists its options\n");
}

TEST_CASE("options: a number that begins with 0 is decimal") {
  CHECK(run_coldchain({"check", "--jobs", "0100", "x"}).err.find("'0100' is not a number") !=
        std::string::npos);
}
