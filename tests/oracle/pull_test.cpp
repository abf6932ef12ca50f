// SPDX-License-Identifier: MIT
// A pull or a safe rebase changes nothing that QEMU reads, whatever the chains are made of; and the
// image that it leaves is one without errors and leaks, whose end is the one that was planned.
#include "chain_maker.hpp"
#include "oracle.hpp"
#include "seeds.hpp"

#include <cstdlib>

#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::ChainMaker;
using testing::quoted;
using testing::Ran;
using testing::read_file;
using testing::run_coldchain_in;
using testing::run_in;

namespace {

// What QEMU reads of the image, and of each of its snapshots.
std::vector<std::string> content(const ChainMaker& chain, const std::string& image) {
  std::vector<std::string> all;
  std::vector<std::string> views = {""};
  for (const std::string& snapshot : chain.top().snapshots)
    views.push_back("-l " + snapshot);
  for (const std::string& view : views) {
    const auto done = run_in(chain.path(), "qemu-img convert -f qcow2 -O raw " + view + " " +
                                               image + " content && cat content && rm content");
    all.push_back(done.status == 0 ? done.out : "cannot be read");
  }
  return all;
}

// `verb` with its options, done to a copy of the top, whose backing file is `base` then, if any.
// Returns whether it was carried out.
bool change(const ChainMaker& chain, const std::vector<std::string>& verb,
            const std::string& base) {
  REQUIRE(run_in(chain.path(), "cp " + chain.top().name + " pulled").status == 0);
  const std::vector<std::string> before = content(chain, "pulled");
  std::vector<std::string> arguments = verb;
  arguments.insert(arguments.end(), {"-f", "qcow2", "--output=json", "pulled"});
  std::vector<std::string> plan = arguments;
  plan.insert(plan.begin(), "plan");
  const std::string bytes = read_file(chain.path() + "/pulled");
  const Ran planned = run_coldchain_in(chain.path(), plan);
  CHECK((read_file(chain.path() + "/pulled") == bytes));
  const Ran done = run_coldchain_in(chain.path(), arguments);
  CHECK(done.status == planned.status);
  CAPTURE(done.err);
  if (done.status != 0) {
    CHECK((read_file(chain.path() + "/pulled") == bytes));
    const bool is_known = done.err.find("external data file") != std::string::npos ||
                          done.err.find("internal snapshots read") != std::string::npos ||
                          done.err.find("is damaged") != std::string::npos;
    CHECK_MESSAGE(is_known, done.err);
    return false;
  }
  CHECK((content(chain, "pulled") == before));
  const auto check = run_in(chain.path(), "qemu-img check -f qcow2 --output=json pulled");
  CAPTURE(check.out);
  CAPTURE(check.err);
  CHECK(check.status == 0);
  auto cost = nlohmann::json::parse(done.out);
  auto promised = nlohmann::json::parse(planned.out);
  CHECK(promised["is-plan"] == true);
  cost.erase("is-plan");
  promised.erase("is-plan");
  promised.erase("command");
  promised.erase("images");
  CHECK(cost == promised);
  CHECK(cost["image-end-after"] == nlohmann::json::parse(check.out)["image-end-offset"]);
  CHECK(cost["size-after"] == read_file(chain.path() + "/pulled").size());
  const auto info = nlohmann::json::parse(
      run_in(chain.path(), "qemu-img info --output=json -f qcow2 pulled").out);
  CHECK(info.value("backing-filename", "") == base);
  return true;
}

bool pull(const ChainMaker& chain, const std::string& base) {
  return change(chain,
                base.empty() ? std::vector<std::string>{"pull"}
                             : std::vector<std::string>{"pull", "-b", base},
                base);
}

// An image "new", which has something in common with the chain, or nothing. Returns its format.
std::string make_new_base(const ChainMaker& chain, testing::Draw& draw) {
  const testing::LayerFile& model = chain.layers()[draw.below(chain.layers().size())];
  const bool is_copy = draw.chance(60) && !model.has_data_file && model.name != chain.top().name;
  const std::string format = is_copy ? model.format : draw.chance(50) ? "raw" : "qcow2";
  const std::uint64_t size = (1 + draw.below(12)) * (512 << 10) + draw.below(3) * 512;
  REQUIRE(run_in(chain.path(),
                 is_copy ? "cp " + model.name + " new"
                         : fmt::format("rm -f new; qemu-img create -q -f {} new {}", format, size))
              .status == 0);
  for (std::uint64_t i = 0; i < draw.below(6); ++i) {
    const std::uint64_t at = draw.below(8000) * 512;
    (void)run_in(chain.path(),
                 fmt::format("qemu-io -f {} -c 'write -q {} {} {}k' new", format,
                             draw.chance(30) ? "-z" : "-P 77", at, 1 + draw.below(300)));
  }
  return format;
}

}  // namespace

TEST_CASE("oracle: a rebase changes nothing that QEMU reads, and does what was planned") {
  if (!testing::have_oracles())
    return;
  testing::Tally tally;
  testing::for_each_seed(8, [&](std::uint64_t seed) {
    const ChainMaker chain(seed + 2'000'000, false);
    CAPTURE(chain.recipe());
    if (chain.top().format != "qcow2")
      return;
    testing::Draw draw(seed);
    tally.add(change(chain, {"rebase", "-b", ""}, ""));
    const testing::LayerFile& lower = chain.layers().front();
    if (chain.layers().size() > 1)
      tally.add(change(chain, {"rebase", "-b", lower.name, "-F", lower.format}, lower.name));
    const std::string format = make_new_base(chain, draw);
    tally.add(change(chain, {"rebase", "-b", "new", "-F", format}, "new"));
  });
  tally.check();
}

TEST_CASE("oracle: a pull changes nothing that QEMU reads, and does what was planned") {
  if (!testing::have_oracles())
    return;
  testing::Tally tally;
  testing::for_each_seed(8, [&](std::uint64_t seed) {
    const ChainMaker chain(seed + 1'000'000, false);
    CAPTURE(chain.recipe());
    if (chain.layers().size() < 2)
      return;
    tally.add(pull(chain, ""));
    tally.add(change(chain, {"pull", "--detect-zeroes"}, ""));
    tally.add(change(chain, {"pull", "--snapshots"}, ""));
    tally.add(change(chain, {"pull", "--decompress"}, ""));
    tally.add(change(chain, {"pull", "--recompress", "--snapshots"}, ""));
    if (const std::string& base = chain.layers().front().name; chain.layers().size() > 2) {
      tally.add(change(chain, {"pull", "--detect-zeroes", "-b", base}, base));
      tally.add(change(chain, {"pull", "--detect-zeroes", "--recompress", "-b", base}, base));
      tally.add(change(chain, {"pull", "--snapshots", "--detect-zeroes", "-b", base}, base));
    }
    for (std::size_t base = 0; base + 2 < chain.layers().size(); ++base)
      tally.add(pull(chain, chain.layers()[base].name));
  });
  tally.check();
}

TEST_CASE("oracle: an allocation changes nothing that QEMU reads, and leaves no cluster out") {
  if (!testing::have_oracles())
    return;
  testing::Tally tally;
  testing::for_each_seed(8, [&](std::uint64_t seed) {
    const ChainMaker chain(seed + 4'000'000, false);
    CAPTURE(chain.recipe());
    if (chain.top().format != "qcow2")
      return;
    const std::size_t layers = chain.layers().size();
    const std::string backing = layers < 2 ? "" : chain.layers()[layers - 2].name;
    testing::Draw draw(seed);
    const std::uint64_t at = draw.below(400) * 512;
    const std::string range = fmt::format("--range={}:{}", at, 512 * (1 + draw.below(200)));
    for (const std::string how : {"--reserve", "--zero-fill", "--thin"})
      tally.add(change(chain, {"allocate", how, range}, backing));
    for (const std::string how : {"--reserve", "--zero-fill"}) {
      const bool is_done = change(chain, {"allocate", how}, "");
      tally.add(is_done);
      if (!is_done)
        continue;
      const auto check = nlohmann::json::parse(
          run_in(chain.path(), "qemu-img check -f qcow2 --output=json pulled").out);
      CHECK(check["allocated-clusters"] == check["total-clusters"]);
      CHECK(check.value("compressed-clusters", 0) == 0);
    }
  });
  tally.check();
}

TEST_CASE("oracle: compressed clusters are pulled as they are where that takes less room") {
  if (!testing::have_oracles())
    return;
  // Options of the base and of the image, and how many of its clusters are compressed afterwards.
  struct Kind {
    std::string base;
    std::string top;
    std::uint64_t compressed;
  };
  for (const Kind& kind : {Kind{"cluster_size=64k", "cluster_size=64k", 32},
                           Kind{"cluster_size=64k", "cluster_size=64k,extended_l2=on", 32},
                           Kind{"cluster_size=64k", "cluster_size=64k,refcount_bits=1", 32},
                           Kind{"cluster_size=64k", "cluster_size=64k,refcount_bits=2", 32},
                           Kind{"cluster_size=64k", "cluster_size=64k,compression_type=zstd", 0},
                           Kind{"cluster_size=64k,compression_type=zstd",
                                "cluster_size=64k,compression_type=zstd,refcount_bits=64", 32},
                           Kind{"cluster_size=64k", "cluster_size=32k", 0},
                           Kind{"cluster_size=4k", "cluster_size=4k,compat=0.10", 514},
                           Kind{"cluster_size=512", "cluster_size=512", 0}}) {
    CAPTURE(kind.base);
    CAPTURE(kind.top);
    const testing::TempFolder folder;
    const bool has_snapshot = kind.top.find("refcount_bits=1") == std::string::npos;
    const std::string snapshot = has_snapshot ? " && qemu-img snapshot -c s top" : "";
    const std::string compare =
        "qemu-img convert top all && cmp all raw" +
        std::string(has_snapshot ? " && qemu-img convert -l s top all && cmp all raw" : "");
    REQUIRE(run_in(folder.path(),
                   "seq 400000 | head -c 2105344 > raw && qemu-img convert -c -f raw -O qcow2 -o " +
                       kind.base + " raw base && qemu-img create -q -f qcow2 -b base -F qcow2 -o " +
                       kind.top + " top" + snapshot)
                .status == 0);
    const Ran pulled = run_coldchain_in(folder.path(), {"pull", "-q", "--snapshots", "top"});
    CHECK_MESSAGE(pulled.status == 0, pulled.err);
    CHECK(run_in(folder.path(), compare).status == 0);
    const auto check = run_in(folder.path(), "qemu-img check --output=json top");
    CHECK(check.status == 0);
    CHECK(nlohmann::json::parse(check.out).value("compressed-clusters", 0) == kind.compressed);
    // They are counted so that a guest is not in their way, nor they in its.
    CHECK(run_in(folder.path(), "qemu-io -c 'write -q -P 1 0 2M' top && qemu-img check -q top")
              .status == 0);
    if (has_snapshot)
      CHECK(run_in(folder.path(), "qemu-img convert -l s top all && cmp all raw").status == 0);
  }
}

TEST_CASE(
    "oracle: what an internal snapshot shares with a smaller disk becomes that disk's alone") {
  if (!testing::have_oracles())
    return;
  for (const std::string options : {"cluster_size=64k", "cluster_size=4k", "extended_l2=on"}) {
    CAPTURE(options);
    const testing::TempFolder folder;
    REQUIRE(run_in(folder.path(),
                   "qemu-img create -q -f qcow2 base 2M && qemu-io -c 'write -q -P 9 1032k 900k' "
                   "base && qemu-img create -q -f qcow2 -b base -F qcow2 -o " +
                       options +
                       " top 1030k && qemu-io -c 'write -q -P 3 0 3k' -c 'write -q -P 4 1025k 2k' "
                       "top && qemu-img snapshot -c a top && qemu-img resize -q top 2M && "
                       "qemu-img snapshot -c b top && qemu-img snapshot -a a top && "
                       "qemu-img snapshot -d a top && "
                       "qemu-img convert top before && qemu-img convert -l b top before-b")
                .status == 0);
    const Ran pulled = run_coldchain_in(folder.path(), {"pull", "-q", "--snapshots", "top"});
    CHECK_MESSAGE(pulled.status == 0, pulled.err);
    CHECK(run_in(folder.path(),
                 "qemu-img check -q top && qemu-img convert top after && qemu-img convert -l b top "
                 "after-b && cmp before after && cmp before-b after-b")
              .status == 0);
  }
}

TEST_CASE(
    "oracle: a pull that needs a larger refcount table leaves an image that QEMU finds clean") {
  if (!testing::have_oracles())
    return;
  const testing::TempFolder folder;
  for (const std::uint64_t clusters : {3960U, 3980U, 4000U, 7900U}) {
    CAPTURE(clusters);
    REQUIRE(
        run_in(folder.path(),
               fmt::format("rm -f top; head -c {} /dev/zero | tr '\\0' x > base; qemu-img create "
                           "-q -f qcow2 -o cluster_size=512,refcount_bits=64 -b base -F raw top",
                           clusters * 512))
            .status == 0);
    CHECK(run_coldchain_in(folder.path(), {"pull", "-q", "top"}).status == 0);
    CHECK(run_in(folder.path(), "qemu-img check -q top && qemu-img compare -q -F raw top base")
              .status == 0);
  }
}

TEST_CASE("oracle: behind the end of a pulled disk nothing comes to light when it grows") {
  if (!testing::have_oracles())
    return;
  const testing::TempFolder folder;
  // Clusters with data in them become free, and are taken again.
  REQUIRE(
      run_in(folder.path(),
             "qemu-img create -q -f qcow2 base 513k && qemu-io -c 'write -q -P 1 512k 1k' base && "
             "qemu-img create -q -f qcow2 -b base -F qcow2 top && "
             "qemu-io -c 'write -q -P 7 0 512k' top && "
             "qemu-io --image-opts driver=qcow2,discard=unmap,pass-discard-request=off,"
             "pass-discard-other=off,file.driver=file,file.filename=top,file.discard=ignore "
             "-c 'discard 0 512k'")
          .status == 0);
  CHECK(run_coldchain_in(folder.path(), {"pull", "-q", "top"}).status == 0);
  REQUIRE(run_in(folder.path(), "qemu-img resize -q top 640k").status == 0);
  CHECK(run_in(folder.path(), "qemu-io -c 'read -P 0 513k 63k' top | grep -c failed").out == "0\n");
}
