// SPDX-License-Identifier: MIT
// Bitmaps of a base whose disk grows are those that qemu-img commit leaves.
#include "dirty_ranges.hpp"
#include "oracle.hpp"
#include "temp_folder.hpp"

#include <fstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::dirty_ranges;
using testing::Ran;
using testing::read_file;
using testing::run_coldchain_in;
using testing::run_in;

namespace {

using Ranges = std::vector<GuestRange>;

struct Growth {
  std::string options;  // of the base
  std::string before;   // sizes of the disk
  std::string after;
  std::string granularity;
  std::string more = "true";  // is done to the base
};

// Writes near the end of the base are in its bitmap, and a few in the top.
void make(const testing::TempFolder& folder, const Growth& growth) {
  const auto made = run_in(
      folder.path(),
      fmt::format(
          "qemu-img create -q -f qcow2 root 1M && mkdir ours && cd ours && qemu-img create -q -f "
          "qcow2 {} base {} && qemu-img bitmap --add -g {} base on && qemu-img bitmap --add -g {} "
          "base off && qemu-io -c 'write -q 512k 64k' -c 'write -q 1000k 24k' base && qemu-img "
          "bitmap --disable base off && {} && qemu-img create -q -f qcow2 -b base -F qcow2 top {} "
          "&& qemu-io -c 'write -q 700k 10k' -c 'write -q -z 512k 64k' -c 'write -q 1200k 1k' -c "
          "'write -q 3M 100k' top && cp -r ../ours ../theirs",
          growth.options, growth.before, growth.granularity, growth.granularity, growth.more,
          growth.after));
  REQUIRE_MESSAGE(made.status == 0, made.err);
}

}  // namespace

TEST_CASE("oracle: bitmaps of a base that grows mark what they mark after qemu-img commit") {
  if (!testing::have_oracles())
    return;
  for (const Growth& growth :
       {Growth{"", "1M", "8M", "64k"},   // as many entries as before
        Growth{"", "1M", "20G", "512"},  // more entries in the same table
        Growth{"-o cluster_size=512", "1M", "5M", "512"},
        Growth{"-o cluster_size=512", "1M", "300M", "512"},  // a table elsewhere
        Growth{"-o cluster_size=512", "1M", "300M", "512", "qemu-img snapshot -c s base"},
        Growth{"-o extended_l2=on,cluster_size=16k", "1025k", "20G", "4k"},
        Growth{"-b ../root -F qcow2", "1M", "20G", "512"},
        Growth{"-b ../root -F qcow2 -o cluster_size=512", "1M", "300M", "1k",
               "qemu-img bitmap --add base third"}}) {
    CAPTURE(growth.options);
    CAPTURE(growth.after);
    const testing::TempFolder folder;
    make(folder, growth);
    const std::string ours = folder / "ours";
    const std::string theirs = folder / "theirs";
    const auto peer = run_in(theirs, "qemu-img commit -q -f qcow2 top");
    const Ran planned =
        run_coldchain_in(ours, {"plan", "commit", "-f", "qcow2", "--output=json", "top"});
    const Ran done = run_coldchain_in(ours, {"commit", "-f", "qcow2", "--output=json", "top"});
    REQUIRE_MESSAGE(done.status == 0, done.err);
    const auto cost = nlohmann::json::parse(done.out);
    CHECK(cost["digest"] == nlohmann::json::parse(planned.out)["digest"]);
    const auto check = run_in(ours, "qemu-img check --output=json base");
    CHECK_MESSAGE(check.status == 0, check.out);
    CHECK(cost["image-end-after"] == nlohmann::json::parse(check.out)["image-end-offset"]);
    if (peer.status != 0)  // QEMU grows no disk with a snapshot in some cases
      continue;
    CHECK(run_in(folder.path(), "qemu-img compare -q ours/base theirs/base").status == 0);
    for (const std::string name : {"on", "off"}) {
      const Ranges marked = dirty_ranges(ours, "base", name);
      CHECK((marked == dirty_ranges(theirs, "base", name)));
      CHECK_FALSE(marked.empty());
    }
    // QEMU loads them to write, and stores them again.
    CHECK(run_in(ours, "qemu-io -c 'write -q 4M 64k' base && qemu-img check -q base").status == 0);
    CHECK(testing::covers(dirty_ranges(ours, "base", "on"),
                          GuestRange{{4 << 20}, {(4 << 20) + 65536}}));
  }
}

TEST_CASE("oracle: a bitmap whose last entry says that all is dirty says it of no new range") {
  if (!testing::have_oracles())
    return;
  for (const std::string after : {"3M", "300M"}) {
    CAPTURE(after);
    const testing::TempFolder folder;
    const auto made = run_in(folder.path(),
                             "qemu-img create -q -f qcow2 -o cluster_size=512 base 3072000 && "
                             "qemu-img bitmap --add -g 512 base b && qemu-img create -q -f qcow2 "
                             "-b base -F qcow2 top " +
                                 after);
    REQUIRE_MESSAGE(made.status == 0, made.err);
    const auto table =
        run_in(folder.path(), COLDCHAIN_PROGRAM " layout base | awk '/bitmap table/ { print $1 }'");
    std::fstream base(folder / "base", std::ios::in | std::ios::out | std::ios::binary);
    base.seekp(static_cast<std::streamoff>(std::stoull(table.out, nullptr, 16)));
    const std::string one("\0\0\0\0\0\0\0\1", 8);
    base << one << one << std::flush;
    REQUIRE((dirty_ranges(folder.path(), "base", "b") == Ranges{{{0}, {3072000}}}));
    const Ran done = run_coldchain_in(folder.path(), {"commit", "-q", "top"});
    CHECK_MESSAGE(done.status == 0, done.err);
    CHECK(run_in(folder.path(), "qemu-img check -q base").status == 0);
    CHECK((dirty_ranges(folder.path(), "base", "b") == Ranges{{{0}, {3072000}}}));
  }
}

TEST_CASE("oracle: a bitmap that was not closed keeps its base from growing, and is named") {
  if (!testing::have_oracles())
    return;
  const testing::TempFolder folder;
  const auto made =
      run_in(folder.path(),
             "qemu-img create -q -f qcow2 base 1M && qemu-img bitmap --add base 'a b' && (qemu-io "
             "-c 'write -q 0 64k' -c 'abort' base > log 2>&1 || true) && qemu-img create -q -f "
             "qcow2 -b base -F qcow2 top 2M && qemu-io -c 'write -q 1M 64k' top");
  REQUIRE_MESSAGE(made.status == 0, made.err);
  const std::string before = read_file(folder / "base");
  const Ran refused = run_coldchain_in(folder.path(), {"commit", "-q", "top"});
  CHECK(refused.status == 1);
  CHECK((read_file(folder / "base") == before));
  CHECK_MESSAGE(refused.err.find("Remove it and make a full backup: qemu-img bitmap --remove ") !=
                    std::string::npos,
                refused.err);
  CHECK_MESSAGE(refused.err.find("base 'a b'\n") != std::string::npos, refused.err);
  REQUIRE(run_in(folder.path(), "qemu-img bitmap --remove base 'a b'").status == 0);
  CHECK(run_coldchain_in(folder.path(), {"commit", "-q", "top"}).status == 0);
}

TEST_CASE("oracle: zeros that are committed where the base reads zeros leave its bitmap clean") {
  if (!testing::have_oracles())
    return;
  const testing::TempFolder folder;
  REQUIRE(run_in(folder.path(),
                 "qemu-img create -q -f qcow2 base 1M && qemu-img bitmap --add base b && qemu-img "
                 "create -q -f qcow2 -b base -F qcow2 top 2M && qemu-io -c 'write -q -z 512k 64k' "
                 "-c 'write -q -z 1536k 64k' top")
              .status == 0);
  const Ran done = run_coldchain_in(folder.path(), {"commit", "-q", "top"});
  CHECK_MESSAGE(done.status == 0, done.err);
  CHECK(dirty_ranges(folder.path(), "base", "b").empty());
}
