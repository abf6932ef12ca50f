// SPDX-License-Identifier: MIT
// When layers leave the chain of an image, its bitmaps still mark all that has changed since they
// were made, and no less than after qemu-img rebase.
#include "chain_maker.hpp"
#include "dirty_ranges.hpp"
#include "oracle.hpp"
#include "seeds.hpp"

#include <algorithm>

#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::ChainMaker;
using testing::covers;
using testing::dirty_ranges;
using testing::LayerFile;
using testing::Ran;
using testing::run_coldchain_in;
using testing::run_in;

namespace {

using Ranges = std::vector<GuestRange>;

// base(B) <- mid(B, writes at 128k) <- top(B); all are 1 MiB, with clusters of 64 KiB.
void make_three(const testing::TempFolder& folder, const std::string& mid_bitmap,
                const std::string& then = "true") {
  const auto made = run_in(
      folder.path(),
      "qemu-img create -q -f qcow2 base 1M && qemu-io -c 'write -q -P 1 0 64k' base && qemu-img "
      "bitmap --add base B && qemu-img create -q -f qcow2 -b base -F qcow2 mid && " +
          mid_bitmap +
          " && qemu-io -c 'write -q -P 7 128k 64k' mid && qemu-img create -q -f qcow2 -b mid -F "
          "qcow2 top && qemu-img bitmap --add top B && qemu-img bitmap --add --disable top off && "
          "qemu-io -c 'write -q -P 8 512k 64k' top && " +
          then);
  REQUIRE_MESSAGE(made.status == 0, made.err);
}

std::string content(const std::string& folder, const std::string& image) {
  const auto done = run_in(folder, "qemu-img convert -f qcow2 -O raw " + image +
                                       " content && cat content && rm content");
  REQUIRE_MESSAGE(done.status == 0, done.err);
  return done.out;
}

// In sectors.
Ranges differences(const std::string& before, const std::string& after) {
  Ranges ranges;
  for (std::uint64_t at = 0; at < after.size(); at += 512) {
    if (after.compare(at, 512, before, std::min<std::size_t>(at, before.size()), 512) != 0)
      ranges.push_back({{at}, {std::min<std::uint64_t>(at + 512, after.size())}});
  }
  return ranges;
}

// A chain whose layers have bitmaps, and are written to from then on.
class RecordedChain {
 public:
  RecordedChain(const ChainMaker& chain, testing::Draw& draw) : chain_(chain) {
    before_ = content(chain.path(), chain.top().name);
    for (const LayerFile& layer : chain.layers()) {
      const std::string& name = layer.name;
      const std::string size = fmt::format("-g {}", 512U << draw.below(9));
      const bool has = layer.version3 && layer.format == "qcow2" &&
                       (name == chain.top().name || draw.chance(75)) &&
                       run("qemu-img bitmap --add " + size + " " + name + " B");
      if (has && name != chain.top().name && draw.chance(10))
        (void)run("qemu-img bitmap --disable " + name + " B");
      else if (has)
        recording_.push_back(name);
      for (std::uint64_t i = 0; i < draw.below(4); ++i)
        (void)run(fmt::format("qemu-io -f {} -c 'write -q {} {} {}k' {}", layer.format,
                              draw.chance(30) ? "-z" : "-P 99", draw.below(layer.size / 512) * 512,
                              1 + draw.below(100), name));
    }
    changed_ = differences(before_, content(chain.path(), chain.top().name));
  }

  [[nodiscard]] bool has_top() const { return records(chain_.top().name); }
  [[nodiscard]] bool records(const std::string& name) const {
    return std::find(recording_.begin(), recording_.end(), name) != recording_.end();
  }

  // A copy of the top that has `base` below it now marks all that has changed, together with the
  // layers that stayed.
  void check(const std::string& copy, std::size_t layers_below) const {
    Ranges dirty = dirty_ranges(chain_.path(), copy, "B");
    bool says_all = true;
    for (std::size_t i = 0; i < layers_below; ++i) {
      const std::string& name = chain_.layers()[i].name;
      says_all = says_all && records(name);
      if (!records(name))
        continue;
      const Ranges more = dirty_ranges(chain_.path(), name, "B");
      dirty.insert(dirty.end(), more.begin(), more.end());
    }
    std::sort(dirty.begin(), dirty.end(),
              [](const GuestRange& a, const GuestRange& b) { return a.begin < b.begin; });
    if (says_all)
      CHECK(covers(dirty, changed_));
  }

 private:
  bool run(const std::string& command) const { return run_in(chain_.path(), command).status == 0; }

  const ChainMaker& chain_;
  std::string before_;
  Ranges changed_;
  std::vector<std::string> recording_;
};

}  // namespace

TEST_CASE("oracle: after a layer leaves a chain, bitmaps mark what changed and what QEMU marks") {
  if (!testing::have_oracles())
    return;
  testing::Tally tally;
  testing::for_each_seed(10, [&](std::uint64_t seed) {
    const ChainMaker chain(seed + 5'000'000, false);
    CAPTURE(chain.recipe());
    testing::Draw draw(seed);
    if (chain.layers().size() < 2 || chain.top().format != "qcow2")
      return;
    const RecordedChain recorded(chain, draw);
    if (!recorded.has_top())
      return;
    for (std::size_t below = 0; below + 1 < chain.layers().size(); ++below) {
      const std::string base = below == 0 ? "" : chain.layers()[below - 1].name;
      const std::string format = below == 0 ? "qcow2" : chain.layers()[below - 1].format;
      for (const std::string verb : {"pull", "rebase"}) {
        CAPTURE(verb);
        CAPTURE(base);
        REQUIRE(run_in(chain.path(), "cp " + chain.top().name + " ours && cp ours theirs").status ==
                0);
        std::vector<std::string> arguments = {verb, "-q", "-f", "qcow2", "ours", "--force"};
        if (verb == "rebase" || !base.empty())
          arguments.insert(arguments.end(), {"-b", base});
        if (verb == "rebase" && !base.empty())
          arguments.insert(arguments.end(), {"-F", format});
        const Ran done = run_coldchain_in(chain.path(), arguments);
        tally.add(done.status == 0);
        if (done.status != 0)
          continue;
        CHECK(run_in(chain.path(), "qemu-img check -q -f qcow2 ours").status == 0);
        recorded.check("ours", below);
        const auto peer =
            run_in(chain.path(), fmt::format("qemu-img rebase -f qcow2 -b '{}' {} theirs", base,
                                             base.empty() ? "" : "-F " + format));
        if (peer.status == 0)
          CHECK(covers(dirty_ranges(chain.path(), "ours", "B"),
                       dirty_ranges(chain.path(), "theirs", "B")));
      }
    }
  });
  tally.check();
}

TEST_CASE("oracle: bitmaps gain the bits of layers that leave, and no others") {
  if (!testing::have_oracles())
    return;
  const Ranges both = {{{128 << 10}, {192 << 10}}, {{512 << 10}, {576 << 10}}};
  const std::vector<std::vector<std::string>> commands = {
      {"pull", "-b", "base"},
      {"pull", "--detect-zeroes", "--recompress", "-b", "base"},
      {"pull", "--snapshots", "-b", "base"},
      {"rebase", "-b", "base", "-F", "qcow2"}};
  for (std::vector<std::string> command : commands) {
    CAPTURE(command);
    const testing::TempFolder folder;
    make_three(folder, "qemu-img bitmap --add mid B",
               "qemu-img snapshot -c s top && qemu-io -c 'write -q -P 3 768k 4k' top");
    if (command[1] != "--snapshots")
      command.emplace_back("--force");
    command.emplace_back("top");
    const Ran done = run_coldchain_in(folder.path(), command);
    CHECK_MESSAGE(done.status == 0, done.err);
    CHECK_MESSAGE(done.err.find("stays in its layer") == std::string::npos, done.err);
    Ranges expected = both;
    expected.push_back({{768 << 10}, {832 << 10}});
    CHECK((dirty_ranges(folder.path(), "top", "B") == expected));
    CHECK(dirty_ranges(folder.path(), "top", "off").empty());
  }
}

TEST_CASE("oracle: a layer that leaves and cannot say what changed makes the whole disk dirty") {
  if (!testing::have_oracles())
    return;
  const std::string damage =
      "at=$(qemu-img check --output=json mid | sed -n 's/.*image-end-offset\": "
      "\\([0-9]*\\).*/\\1/p') && truncate -s $((at - 65536)) mid";
  const std::string open =
      "(qemu-io -c 'write -q -P 7 128k 64k' -c 'abort' mid > log 2>&1 || true)";
  struct Kind {
    std::string bitmap;
    std::string then;
    std::string reason;
  };
  for (const Kind& kind :
       {Kind{"true", "true", "mid has no bitmap of this name"},
        Kind{"qemu-img bitmap --add --disable mid B", "true", "that of mid is disabled"},
        Kind{"qemu-img bitmap --add mid B", open, "that of mid was not closed by its last writer"},
        Kind{"qemu-img bitmap --add mid B", damage, "the bitmaps of mid cannot be read"}}) {
    CAPTURE(kind.reason);
    const testing::TempFolder folder;
    make_three(folder, kind.bitmap, kind.then);
    const Ran done =
        run_coldchain_in(folder.path(), {"pull", "-b", "base", "--output=json", "top"});
    REQUIRE_MESSAGE(done.status == 0, done.err);
    CHECK((dirty_ranges(folder.path(), "top", "B") == Ranges{{{0}, {1 << 20}}}));
    CHECK_MESSAGE(done.err.find("bitmap B of top marks the whole disk from now on: " +
                                kind.reason) != std::string::npos,
                  done.err);
    const auto json = nlohmann::json::parse(done.out);
    CHECK(json["bitmaps-dirty"] ==
          nlohmann::json::array({{{"name", "B"}, {"reason", kind.reason}}}));
    CHECK(json["bitmaps-marked"].empty());
  }
}

TEST_CASE("oracle: where layers stay, bitmaps gain nothing") {
  if (!testing::have_oracles())
    return;
  const std::vector<std::vector<std::string>> commands = {
      {"pull", "--range", "0:1M"}, {"allocate", "--range", "0:1M"}, {"pull", "-b", "mid"}};
  for (std::vector<std::string> command : commands) {
    CAPTURE(command);
    const testing::TempFolder folder;
    make_three(folder, "qemu-img bitmap --add mid B");
    command.emplace_back("top");
    const Ran done = run_coldchain_in(folder.path(), command);
    CHECK_MESSAGE(done.status == 0, done.err);
    CHECK((dirty_ranges(folder.path(), "top", "B") == Ranges{{{512 << 10}, {576 << 10}}}));
  }
}

TEST_CASE("oracle: bits of a layer that stays behind one without that bitmap are gained") {
  if (!testing::have_oracles())
    return;
  const testing::TempFolder folder;
  make_three(folder, "qemu-img bitmap --add mid B");
  REQUIRE(run_in(folder.path(),
                 "qemu-io -c 'write -q -P 9 896k 64k' base && qemu-img create -q -f qcow2 -b base "
                 "-F qcow2 other && cp top second && cp other with && qemu-img bitmap --add with B")
              .status == 0);
  CHECK(run_coldchain_in(folder.path(), {"rebase", "-b", "other", "-F", "qcow2", "top"}).status ==
        0);
  CHECK(covers(dirty_ranges(folder.path(), "top", "B"), GuestRange{{896 << 10}, {960 << 10}}));
  CHECK(run_coldchain_in(folder.path(), {"rebase", "-b", "with", "-F", "qcow2", "second"}).status ==
        0);
  CHECK_FALSE(
      covers(dirty_ranges(folder.path(), "second", "B"), GuestRange{{896 << 10}, {960 << 10}}));
}

TEST_CASE("oracle: bits of many granularities, and behind the end of a disk, are gained") {
  if (!testing::have_oracles())
    return;
  const testing::TempFolder folder;
  for (const std::string fine : {"512", "1M"}) {
    for (const std::string options : {"cluster_size=512", "cluster_size=64k,extended_l2=on"}) {
      CAPTURE(fine);
      CAPTURE(options);
      const auto made = run_in(
          folder.path(),
          "rm -f base mid top && qemu-img create -q -f qcow2 base 8M && qemu-img create -q -f "
          "qcow2 "
          "-b base -F qcow2 mid 12M && qemu-img bitmap --add -g " +
              fine +
              " mid B && qemu-io -c 'write -q -P 7 1537k 1k' -c 'write -q 3M 4M' -c 'write -q -P 7 "
              "7M 5M' mid && qemu-img create -q -f qcow2 -b mid -F qcow2 -o " +
              options +
              " top 8M && qemu-img bitmap --add -g 512 top B && qemu-img bitmap --add -g 2M top C");
      REQUIRE_MESSAGE(made.status == 0, made.err);
      REQUIRE(run_coldchain_in(folder.path(), {"pull", "-q", "-b", "base", "top"}).status == 0);
      CHECK(run_in(folder.path(), "qemu-img check -q top").status == 0);
      const Ranges dirty = dirty_ranges(folder.path(), "top", "B");
      CHECK(covers(dirty, Ranges{{{1537 << 10}, {1538 << 10}}, {{3 << 20}, {8 << 20}}}));
      CHECK(covers(dirty, GuestRange{{1 << 20}, {2 << 20}}) == (fine == "1M"));
      CHECK((dirty_ranges(folder.path(), "top", "C") == Ranges{{{0}, {8 << 20}}}));
    }
  }
}

TEST_CASE("oracle: an overlay that is reparented gains the bits of the committed image") {
  if (!testing::have_oracles())
    return;
  for (const std::string bitmap : {"qemu-img bitmap --add mid B", "true"}) {
    CAPTURE(bitmap);
    const testing::TempFolder folder;
    make_three(folder, bitmap, "qemu-img bitmap --remove base B");
    const Ran done = run_coldchain_in(
        folder.path(), {"commit", "--reparent", "--yes", "--output=json", "-f", "qcow2", "mid"});
    REQUIRE_MESSAGE(done.status == 0, done.err);
    const bool is_known = bitmap != "true";
    CHECK(dirty_ranges(folder.path(), "top", "B") ==
          (is_known ? Ranges{{{128 << 10}, {192 << 10}}, {{512 << 10}, {576 << 10}}}
                    : Ranges{{{0}, {1 << 20}}}));
    const bool is_told = done.err.find("mid has no bitmap of this name") != std::string::npos;
    CHECK(is_told != is_known);
    const auto json = nlohmann::json::parse(done.out);
    CHECK(json["reparented"][0]["bitmaps-dirty"].size() == (is_known ? 0 : 1));
    CHECK(run_in(folder.path(), "qemu-img check -q top && qemu-img check -q base").status == 0);
  }
}
