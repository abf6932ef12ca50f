// SPDX-License-Identifier: MIT
#include "fake_world.hpp"
#include "image_builder.hpp"
#include "temp_folder.hpp"

#include <filesystem>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>

using namespace coldchain;
using testing::run_coldchain;
using testing::TempFolder;

TEST_CASE("coldchain: without a verb or with a wrong one it fails and says so on stderr") {
  for (const auto& arguments :
       {std::vector<std::string>{}, {"frobnicate"}, {"info"}, {"map", "--nonsense", "x"}}) {
    const auto ran = run_coldchain(arguments);
    CHECK(ran.status == 1);
    CHECK(ran.out.empty());
    CHECK(ran.err.starts_with("coldchain: "));
  }
}

TEST_CASE("coldchain: an unknown verb is named, with those that there are") {
  CHECK(run_coldchain({"chekc", "x"})
            .err.starts_with("coldchain: there is no verb 'chekc'; there are allocate, apply, "
                             "check, commit, deps, info, "
                             "layout, map, measure, "
                             "plan, pull, rebase, repair, resume, tree, undo."));
}

TEST_CASE("coldchain: a verb, an option or an operand that is wrong is named, with what is near") {
  const auto err_of = [](const std::vector<std::string>& arguments) {
    const auto ran = run_coldchain(arguments);
    CHECK(ran.status == 1);
    return ran.err;
  };
  CHECK(err_of({"chekc", "x"}).find(" Did you mean 'check'? ") != std::string::npos);
  CHECK(err_of({"frobnicate"}).find("Did you mean") == std::string::npos);
  CHECK(err_of({"map", "--sumary", "x"}) ==
        "coldchain: there is no option '--sumary'. Did you mean '--summary'? 'coldchain map "
        "--help' lists its options\n");
  CHECK(err_of({"plan", "pull", "--ouptut=json", "x"}) ==
        "coldchain: there is no option '--ouptut'. Did you mean '--output'? 'coldchain plan pull "
        "--help' lists its options\n");
  CHECK(err_of({"map", "--frobnicate", "x"}) ==
        "coldchain: there is no option '--frobnicate'. 'coldchain map --help' lists its "
        "options\n");
  CHECK(err_of({"map", "x", "y"}) ==
        "coldchain: 'y' is one operand too many; 'coldchain map --help' lists its options\n");
  CHECK(err_of({"plan", "pul", "x"}) ==
        "coldchain: there is no verb 'pul'; there are allocate, commit, pull, rebase, repair. Did "
        "you mean 'pull'? See 'coldchain plan --help'\n");
  CHECK(err_of({"plan"}).starts_with("coldchain: 'coldchain plan' needs a verb; there are "));
  CHECK(err_of({}).starts_with("coldchain: 'coldchain' needs a verb; there are allocate, "));
  CHECK(err_of({"--vesrion"}) ==
        "coldchain: there is no option '--vesrion'. Did you mean '--version'? 'coldchain --help' "
        "lists its options\n");
  CHECK(err_of({"map", "--" + std::string(100000, 'x'), "x"}).find("Did you mean") ==
        std::string::npos);
}

TEST_CASE("coldchain: of an option given twice the last counts, as with qemu-img") {
  const TempFolder folder;
  testing::write_file(folder / "a", std::string(512, 'x'));
  CHECK(run_coldchain({"info", "--output=human", "--output=json", folder / "a"})
            .out.starts_with('{'));
}

TEST_CASE("coldchain: help and version go to stdout and succeed") {
  for (const auto& arguments : {std::vector<std::string>{"--help"},
                                {"--version"},
                                {"-V"},
                                {"info", "--help"},
                                {"map", "--help"},
                                {"tree", "--help"}}) {
    const auto ran = run_coldchain(arguments);
    CHECK(ran.status == 0);
    CHECK_FALSE(ran.out.empty());
    CHECK(ran.err.empty());
  }
}

TEST_CASE("coldchain: every verb says which file it could not open, and why") {
  const TempFolder folder;
  ::mkfifo((folder / "fifo").c_str(), 0600);
  testing::write_file(folder / "empty", "");
  for (const char* verb : {"info", "map", "tree"}) {
    const auto missing = run_coldchain({verb, folder / "none"});
    CHECK(missing.status == 1);
    CHECK(missing.err ==
          "coldchain: Could not open '" + (folder / "none") + "': No such file or directory\n");
    CHECK(run_coldchain({verb, folder / "fifo"}).err.find("is a FIFO") != std::string::npos);
    CHECK(run_coldchain({verb, "-f", "qcow2", folder / "empty"}).status == 1);
    CHECK(run_coldchain({verb, "-f", "nonsense", folder / "empty"}).err.find("Unknown driver") !=
          std::string::npos);
    CHECK(run_coldchain({verb, "nbd:localhost:10809"}).err.find("nothing is contacted") !=
          std::string::npos);
    CHECK(run_coldchain({verb, "--object", "secret,id=x", folder / "empty"}).status == 1);
    CHECK(run_coldchain({verb, "--root", "/", "--sysroot", "/", folder / "empty"}).status == 1);
  }
  for (const char* verb : {"info", "map"})
    CHECK(run_coldchain({verb, folder.path()}).err.find("is a directory") != std::string::npos);
}

TEST_CASE("plan: the help of a change shows a plan as its example") {
  for (const std::string verb : {"allocate", "commit", "pull", "rebase", "repair"}) {
    CAPTURE(verb);
    CHECK(run_coldchain({"plan", verb, "--help"}).out.find("Example: coldchain plan " + verb) !=
          std::string::npos);
    CHECK(run_coldchain({verb, "--help"}).out.find("Example: coldchain " + verb) !=
          std::string::npos);
  }
}

TEST_CASE("coldchain: an empty raw file has an answer") {
  const TempFolder folder;
  testing::write_file(folder / "empty", "");
  CHECK(
      run_coldchain({"map", "--output=json", folder / "empty"}).out ==
      R"([{ "start": 0, "length": 0, "depth": 0, "present": false, "zero": false, "data": false}])"
      "\n");
  CHECK(run_coldchain({"map", "--provenance", "--output=json", folder / "empty"}).out == "[]\n");
  CHECK(run_coldchain({"map", "--context", "base:allocation", "--output=json", folder / "empty"})
            .out == "[\n\n]\n");
  CHECK(run_coldchain({"tree", folder / "empty"}).status == 0);
}

TEST_CASE("coldchain: output that cannot be written is a failure") {
  const TempFolder folder;
  testing::write_file(folder / "raw", "x");
  for (const char* verb : {"info", "map", "tree"}) {
    testing::FakeWorld world;
    world.out_fails = true;
    CHECK(cli::run({verb, folder / "raw"}, world) == 1);
    CHECK(world.err_text.find("No space left on device") != std::string::npos);
  }
}

TEST_CASE("coldchain: looking changes nothing, not even the access time") {
  const TempFolder folder;
  testing::ImageBuilder(testing::ImageOptions{}).data(0, 1).build().write_to(folder / "a");
  const timespec old[2] = {{1000, 0}, {2000, 0}};
  ::utimensat(AT_FDCWD, (folder / "a").c_str(), old, 0);
  for (const auto& arguments : {std::vector<std::string>{"info", folder / "a"},
                                {"map", folder / "a"},
                                {"tree", folder / "a"},
                                {"tree", folder.path()}})
    REQUIRE(run_coldchain(arguments).status == 0);
  struct stat facts = {};
  ::stat((folder / "a").c_str(), &facts);
  CHECK(facts.st_atim.tv_sec == 1000);
  CHECK(facts.st_mtim.tv_sec == 2000);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);
}
