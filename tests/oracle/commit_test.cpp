// SPDX-License-Identifier: MIT
// A commit leaves what qemu-img commit leaves: every layer reads the same, whatever the chain is
// made of; and it costs what was planned.
#include "chain_maker.hpp"
#include "oracle.hpp"
#include "seeds.hpp"

#include <filesystem>

#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::ChainMaker;
using testing::LayerFile;
using testing::Ran;
using testing::read_file;
using testing::run_coldchain_in;
using testing::run_in;

namespace {

// What QEMU reads through a layer, or through one of its snapshots.
std::string content(const std::string& folder, const LayerFile& layer,
                    const std::string& snapshot = "") {
  const std::string view = snapshot.empty() ? "" : "-l " + snapshot + " ";
  const auto done = run_in(folder, "qemu-img convert -f " + layer.format + " -O raw " + view +
                                       layer.name + " content && cat content && rm content");
  return done.status == 0 ? done.out : "cannot be read";
}

nlohmann::json checked(const std::string& folder, const std::string& image) {
  const auto check = run_in(folder, "qemu-img check -f qcow2 --output=json " + image);
  CAPTURE(check.out);
  CAPTURE(check.err);
  CHECK(check.status == 0);
  return nlohmann::json::parse(check.out, nullptr, false);
}

void compare_layers(const ChainMaker& chain, std::size_t base, const std::string& ours,
                    const std::string& theirs) {
  for (const LayerFile& layer : chain.layers()) {
    CAPTURE(layer.name);
    CHECK((content(ours, layer) == content(theirs, layer)));
    // QEMU shows snapshots with the size that the disk has now.
    for (const std::string& snapshot : layer.snapshots)
      CHECK((content(ours, layer, snapshot).starts_with(content(chain.path(), layer, snapshot))));
    if (layer.format == "qcow2")
      checked(ours, layer.name);
  }
  CHECK((content(ours, chain.top()) == content(chain.path(), chain.top())));
  CHECK((content(ours, chain.layers()[base]).starts_with(content(chain.path(), chain.top()))));
}

void compare_cost(const Ran& planned, const Ran& done, const LayerFile& base, const LayerFile& top,
                  const std::string& folder) {
  auto cost = nlohmann::json::parse(done.out);
  auto promised = nlohmann::json::parse(planned.out);
  CHECK(promised["is-plan"] == true);
  cost.erase("is-plan");
  promised.erase("is-plan");
  promised.erase("command");
  promised.erase("images");
  CHECK(cost == promised);
  CHECK(cost["size-after"] == read_file(folder + "/" + base.name).size());
  if (base.format == "qcow2")
    CHECK(cost["image-end-after"] == checked(folder, base.name)["image-end-offset"]);
  if (cost.contains("emptied"))
    CHECK(cost["emptied"]["image-end-after"] == checked(folder, top.name)["image-end-offset"]);
}

// With the arguments that both know, and with `more` of ours. Returns whether it was carried out.
bool commit(const ChainMaker& chain, std::size_t base, std::vector<std::string> arguments,
            const std::vector<std::string>& more = {}) {
  const std::string ours = chain.path() + "/ours";
  const std::string theirs = chain.path() + "/theirs";
  REQUIRE(run_in(chain.path(),
                 "rm -rf ours theirs && mkdir ours theirs && "
                 "find . -maxdepth 1 -type f -exec cp --sparse=always -t ours {} + -exec "
                 "cp --sparse=always -t theirs {} +")
              .status == 0);
  arguments.insert(arguments.begin(), "commit");
  arguments.insert(arguments.end(), {"-f", "qcow2", chain.top().name});
  const auto peer = run_in(theirs, fmt::format("qemu-img {}", fmt::join(arguments, " ")));
  CAPTURE(peer.err);
  arguments.emplace_back("--output=json");
  arguments.insert(arguments.end(), more.begin(), more.end());
  std::vector<std::string> plan = arguments;
  plan.insert(plan.begin(), "plan");
  const Ran planned = run_coldchain_in(ours, plan);
  CHECK(run_in(chain.path(), "for f in *; do test -d $f || cmp $f ours/$f || exit 1; done")
            .out.empty());
  const Ran done = run_coldchain_in(ours, arguments);
  CHECK(done.status == planned.status);
  CAPTURE(fmt::format("{}", fmt::join(arguments, " ")));
  CAPTURE(done.err);
  if (done.status != 0) {
    CHECK(run_in(chain.path(), "for f in *; do test -d $f || cmp $f ours/$f || exit 1; done")
              .status == 0);
    bool is_known = false;
    for (const char* reason : {"external data file", "internal snapshots read", "is damaged",
                               "could not be applied to a disk"})
      is_known = is_known || done.err.find(reason) != std::string::npos;
    CHECK_MESSAGE(is_known, done.err);
    return false;
  }
  CHECK(run_in(ours, "ls | grep coldchain").out.empty());
  compare_layers(chain, base, ours, peer.status == 0 ? theirs : ours);
  compare_cost(planned, done, chain.layers()[base], chain.top(), ours);
  return true;
}

// What a bitmap of an image marks, as its extents in the words of nbdinfo.
std::string marked(const std::string& folder, const std::string& bitmap) {
  const Ran map = [&] {
    const auto ran = run_in(folder, "qemu-nbd -r -f qcow2 -B " + bitmap +
                                        " -k $PWD/socket --fork base && nbdinfo "
                                        "--map=qemu:dirty-bitmap:" +
                                        bitmap + " \"nbd+unix:///?socket=$PWD/socket\"");
    return Ran{ran.status, ran.out, ran.err};
  }();
  CHECK_MESSAGE(map.status == 0, map.err);
  return map.out;
}

}  // namespace

TEST_CASE("oracle: bitmaps that are merged mark what those mark that qemu-img merges") {
  if (!testing::have_oracles())
    return;
  const std::string root = "-b ../root -F qcow2 ";
  const std::vector<std::pair<std::string, std::string>> bases = {
      {"", "true"},
      {"", "qemu-img bitmap --add base other"},
      {"", "qemu-img bitmap --add base a"},
      {"-o cluster_size=512 ", "true"},
      {"-o extended_l2=on ",
       "qemu-img bitmap --add base other && qemu-img bitmap --remove base other"},
      {root, "true"},
      {root, "qemu-img bitmap --add base other && qemu-img bitmap --remove base other"}};
  for (const auto& base : bases) {
    const std::string& options = base.first;
    const std::string& then = base.second;
    CAPTURE(options);
    CAPTURE(then);
    const testing::TempFolder folder;
    const std::string ours = folder / "ours";
    const std::string theirs = folder / "theirs";
    const auto made = run_in(
        folder.path(),
        "qemu-img create -q -f qcow2 root 64M && mkdir ours && cd ours && qemu-img create -q -f "
        "qcow2 " +
            options + "base 64M && qemu-io -c 'write -q 0 4M' base && " + then +
            " && qemu-img create -q -f qcow2 -b base -F qcow2 top && qemu-img bitmap --add top a "
            "&& qemu-img bitmap --add -g 4k top b && qemu-img bitmap --add --disable top c && "
            "qemu-io -c 'write -q 1M 300k' -c 'write -q 40M 64k' top && qemu-img bitmap --clear "
            "top b && qemu-io -c 'write -q 50M 5k' top && cp -r ../ours ../theirs");
    REQUIRE_MESSAGE(made.status == 0, made.err);
    const auto merged = run_in(
        theirs,
        "qemu-img commit -q -f qcow2 -d top && (qemu-img bitmap --add base a || true) && qemu-img "
        "bitmap --add -g 4k base b && for n in a b; do qemu-img bitmap --merge $n -b top -F qcow2 "
        "base $n; done");
    REQUIRE_MESSAGE(merged.status == 0, merged.err);
    const std::vector<std::string> command = {"commit",          "-f",  "qcow2",        "-d",
                                              "--bitmaps=merge", "top", "--output=json"};
    std::vector<std::string> plan = command;
    plan.insert(plan.begin(), "plan");
    const Ran planned = run_coldchain_in(ours, plan);
    const Ran done = run_coldchain_in(ours, command);
    CHECK_MESSAGE(done.status == 0, done.err);
    CHECK(done.err.find("bitmap c in top stays in its layer") != std::string::npos);
    LayerFile lower;
    lower.name = "base";
    lower.format = "qcow2";
    LayerFile top = lower;
    top.name = "top";
    compare_cost(planned, done, lower, top, ours);
    for (const std::string bitmap : {"a", "b"})
      CHECK(marked(ours, bitmap) == marked(theirs, bitmap));
    CHECK(run_in(folder.path(), "qemu-img compare -q ours/base theirs/base").status == 0);
  }
}

TEST_CASE("oracle: what a larger layer in between marks behind the end of the base is left out") {
  if (!testing::have_oracles())
    return;
  const testing::TempFolder folder;
  const auto made =
      run_in(folder.path(),
             "qemu-img create -q -f qcow2 base 8M && qemu-img create -q -f qcow2 -b base -F qcow2 "
             "mid 40M && qemu-img bitmap --add mid a && qemu-io -c 'write -q 1M 64k' -c 'write -q "
             "7M 30M' mid && qemu-img create -q -f qcow2 -b mid -F qcow2 top 8M && qemu-img bitmap "
             "--add top a && qemu-io -c 'write -q 3M 64k' top");
  REQUIRE_MESSAGE(made.status == 0, made.err);
  for (int round = 0; round < 2; ++round) {  // a bitmap that is new, and one that is there
    const Ran done =
        run_coldchain_in(folder.path(), {"commit", "-q", "-b", "base", "--bitmaps=merge", "top"});
    CHECK_MESSAGE(done.status == 0, done.err);
    CHECK(run_in(folder.path(), "qemu-img check -q base").status == 0);
    CHECK(marked(folder.path(), "a") ==
          "         0     1048576    0  clean\n   1048576       65536    1  dirty\n"
          "   1114112     2031616    0  clean\n   3145728       65536    1  dirty\n"
          "   3211264     4128768    0  clean\n   7340032     1048576    1  dirty\n");
  }
}

TEST_CASE("oracle: a bitmap that cannot be read is told under the name of its layer") {
  if (!testing::have_oracles())
    return;
  const testing::TempFolder folder;
  REQUIRE(run_in(folder.path(),
                 "qemu-img create -q -f qcow2 base 8M && qemu-img create -q -f qcow2 -b base -F "
                 "qcow2 top && qemu-img bitmap --add top a && qemu-io -c 'write -q 3M 64k' top && "
                 "at=$(qemu-img check --output=json top | sed -n 's/.*image-end-offset\": "
                 "\\([0-9]*\\).*/\\1/p') && truncate -s $((at - 65536)) top")
              .status == 0);
  const Ran done = run_coldchain_in(folder.path(), {"plan", "commit", "--bitmaps=merge", "top"});
  CHECK(done.status == 1);
  CHECK_MESSAGE(done.err.find("top: ") != std::string::npos, done.err);
}

TEST_CASE("oracle: a commit leaves what qemu-img commit leaves, and does what was planned") {
  if (!testing::have_oracles())
    return;
  testing::Tally tally;
  testing::for_each_seed(8, [&](std::uint64_t seed) {
    const ChainMaker chain(seed + 3'000'000, false);
    CAPTURE(chain.recipe());
    if (chain.layers().size() < 2)
      return;
    const std::size_t next = chain.layers().size() - 2;
    tally.add(commit(chain, next, {}));
    if (seed % 3 == 0)
      tally.add(commit(chain, next, {"-d"}));
    tally.add(commit(chain, seed % 2 == 0 ? 0 : next,
                     seed % 2 == 0 ? std::vector<std::string>{"-b", chain.layers()[0].name}
                                   : std::vector<std::string>{},
                     {"--detect-zeroes"}));
    for (std::size_t base = 0; base <= next; ++base)
      tally.add(commit(chain, base, {"-b", chain.layers()[base].name}));
  });
  tally.check();
}
