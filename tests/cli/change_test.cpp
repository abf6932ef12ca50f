// SPDX-License-Identifier: MIT
#include "fake_world.hpp"
#include "image_builder.hpp"
#include "oracle.hpp"
#include "temp_folder.hpp"
#include "writable.hpp"

#include <filesystem>
#include <fstream>

#include <coldchain/io/lock.hpp>
#include <coldchain/io/open.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::Ran;
using testing::run_coldchain_in;
using testing::TempFolder;

namespace {

ImageOptions over(const std::string& backing) {
  ImageOptions options;
  options.backing_file = backing;
  options.backing_format = backing.empty() ? "" : "qcow2";
  return options;
}

}  // namespace

TEST_CASE("plan: says beforehand what the change would refuse of the images that it writes to") {
  const TempFolder folder;
  ImageBuilder(over("")).data(1, 'b').build().write_to(folder / "base");
  ImageBuilder(over("base")).data(2, 't').build().write_to(folder / "top");
  ImageBuilder(over("top")).data(3, 'o').build().write_to(folder / "over");
  const auto files = io::system_files({}).value();
  const std::vector<std::string> commit = {"plan", "commit", "--reparent", "top"};
  REQUIRE(run_coldchain_in(folder.path(), commit).status == 0);
  for (const std::string image : {"base", "top", "over"}) {
    CAPTURE(image);
    const std::vector<std::string> command =
        image == "over" ? std::vector<std::string>{"plan", "pull", "over"} : commit;
    {
      const auto held = testing::open_for_writing(folder / image);
      REQUIRE(io::hold_write_locks(*held).has_value());
      for (const auto& planned : {commit, command}) {
        const Ran used = run_coldchain_in(folder.path(), planned);
        CHECK(used.status == (planned[1] == "pull" ? 4 : 1));
        CHECK_MESSAGE(used.err.find(image + "]?") != std::string::npos, used.err);
      }
    }
    std::filesystem::create_hard_link(folder / image, folder / "other");
    for (const auto& planned : {commit, command}) {
      const Ran refused = run_coldchain_in(folder.path(), planned);
      CHECK(refused.status == 1);
      CHECK_MESSAGE(refused.err.find("has 2 names") != std::string::npos, refused.err);
    }
    std::filesystem::remove(folder / "other");
  }
}

TEST_CASE("plan: ends with the status of its verb where a running machine keeps an image") {
  const TempFolder folder;
  testing::write_file(folder / "raw", std::string(1 << 20, 'r'));
  ImageOptions over_raw = over("raw");
  over_raw.backing_format = "raw";
  ImageBuilder(over_raw).data(1, 'b').build().write_to(folder / "base");
  ImageBuilder(over("base")).data(2, 't').build().write_to(folder / "top");
  const auto files = io::system_files({}).value();
  const std::vector<std::vector<std::string>> changes = {
      {"commit", "-d", "top"}, {"pull", "top"}, {"pull", "base"}};
  const auto statuses_of = [&](bool is_plan) {
    std::vector<int> statuses;
    for (std::vector<std::string> change : changes) {
      if (is_plan)
        change.insert(change.begin(), "plan");
      const Ran ran = run_coldchain_in(folder.path(), change);
      CHECK_MESSAGE((ran.status == 0 || ran.err.find("lock") != std::string::npos), ran.err);
      statuses.push_back(ran.status);
    }
    return statuses;
  };
  {
    const auto held = files->open(folder / "base").value();
    REQUIRE(io::hold_read_locks(*held).has_value());
    const std::vector<int> expected = {1, 0, 4};
    CHECK(statuses_of(true) == expected);
  }
  const auto held = testing::open_for_writing(folder / "raw");
  REQUIRE(io::hold_write_locks(*held).has_value());
  const std::vector<int> expected = {1, 4, 4};  // commit's status is qemu-img's
  CHECK(statuses_of(true) == expected);
  CHECK(statuses_of(false) == expected);
}

TEST_CASE("plan: holes are zeros, however much storage what is written to has meanwhile") {
  const TempFolder folder;
  REQUIRE(testing::run_in(folder.path(),
                          "qemu-img create -q -f qcow2 -o preallocation=metadata base 8M && "
                          "qemu-img create -q -f qcow2 -F qcow2 -b base top && "
                          "qemu-io -f qcow2 -c 'write 64k 64k' top && "
                          "qemu-img snapshot -c s top && "
                          "qemu-io -f qcow2 -c 'write -z 256k 128k' top && "
                          "cp base image && qemu-img snapshot -c s image")
              .status == 0);
  const auto plan = [&](const std::string& verb, const std::string& image) {
    const Ran planned = run_coldchain_in(folder.path(), {"plan", verb, "--output=json", image});
    REQUIRE_MESSAGE(planned.status == 0, planned.err);
    return nlohmann::json::parse(planned.out);
  };
  const auto commit = plan("commit", "top");
  const auto allocate = plan("allocate", "image");
  CHECK(commit["zeroed-bytes"] == 0);
  CHECK(allocate["written-bytes"] == 0);
  for (const std::string image : {"base", "image"})
    std::ofstream(folder / image, std::ios::binary | std::ios::app) << std::string(16 << 20, 'x');
  CHECK(plan("commit", "top")["digest"] == commit["digest"]);
  CHECK(plan("allocate", "image")["digest"] == allocate["digest"]);
}
