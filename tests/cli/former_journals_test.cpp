// SPDX-License-Identifier: MIT
#include "former_journals.hpp"

#include "oracle.hpp"

#include <coldchain/graph/chain.hpp>
#include <coldchain/graph/open.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using testing::FormerJournals;
using testing::Ran;
using testing::run_coldchain_in;
using testing::TempFolder;

namespace {

Bytes disk_of(const std::string& image) {
  const auto files = io::system_files({}).value();
  const auto top = graph::open(*files, {}, {.name = image, .format = "qcow2"}).value();
  const auto chain = graph::Chain::make(*top).value();
  Bytes disk(chain.guest_size());
  REQUIRE(chain.read({0}, disk).has_value());
  return disk;
}

bool is_pending(const TempFolder& folder) {
  const auto files = std::filesystem::directory_iterator(folder.path());
  return std::any_of(begin(files), end(files), [](const auto& file) {
    return file.path().string().ends_with(".coldchain-pending");
  });
}

void check_ends(const FormerJournals& journals, const std::string& scene, bool abandon) {
  const TempFolder folder;
  journals.lay_out(scene, folder);
  const bool is_undo = scene.starts_with("undo");
  const bool is_repair = scene.starts_with("repair");
  const std::string image = is_undo || is_repair ? "a" : "top";
  const Bytes disk = disk_of(folder / image);
  std::vector<std::string> command{"resume", image};
  if (abandon)
    command.insert(command.begin() + 1, "--abandon");
  else if (scene.starts_with("rebase"))
    command.insert(command.begin() + 1, {"-b", "other", "-F", "qcow2"});
  if (is_undo)
    command = {"undo", "a.coldchain-undo", "a"};
  const Ran ran = run_coldchain_in(folder.path(), command);
  CHECK_MESSAGE(ran.status == 0, ran.err);
  // A journal that was never finished is of its own image alone.
  if (scene.ends_with("-base.unfinished.none"))
    CHECK(run_coldchain_in(folder.path(), {"resume", "base"}).status == 0);
  CHECK_FALSE(is_pending(folder));
  CHECK((disk_of(folder / image) == disk));
  const bool is_sound = run_coldchain_in(folder.path(), {"check", "-q", image}).status == 0;
  const bool is_as_before = is_undo || (is_repair && abandon);
  CHECK((is_sound || is_as_before || (is_repair && scene.find("+abandoned") != std::string::npos) ||
         scene == "repair-a.unfinished.none" || scene == "repair-a.repair.none"));
}

}  // namespace

TEST_CASE("resume: ends every change that a journal of format 1 has left") {
  const FormerJournals journals;
  CHECK(journals.scenes().size() > 100);
  for (const std::string& scene : journals.scenes()) {
    CAPTURE(scene);
    check_ends(journals, scene, false);
  }
}

TEST_CASE("resume: rolls back every change that a journal of format 1 has left") {
  const FormerJournals journals;
  for (const std::string& scene : journals.scenes()) {
    CAPTURE(scene);
    if (!scene.starts_with("undo"))
      check_ends(journals, scene, true);
  }
}
