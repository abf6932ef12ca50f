// SPDX-License-Identifier: MIT
// The owner of a folder exchanges two names in it while a verb is at work: before each file that
// the verb opens, once.
#include "damage.hpp"
#include "image_builder.hpp"
#include "oracle.hpp"
#include "temp_folder.hpp"

#include <atomic>
#include <functional>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdio.h>

using namespace coldchain;
using testing::FakeWorld;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::read_file;
using testing::run_coldchain_in;
using testing::TempFolder;

namespace {

using Words = std::vector<std::string>;

ImageOptions over(const std::string& backing, const std::string& format) {
  ImageOptions options;
  options.cluster_bits = 12;
  options.size = 8 << 20;
  options.backing_file = backing;
  options.backing_format = backing.empty() ? "" : format;
  return options;
}

// More than one piece, so that a change can be interrupted.
ImageBuilder with_data(const ImageOptions& options, std::uint8_t fill) {
  ImageBuilder builder(options);
  const std::uint64_t first = fill == 'b' ? 0 : 3;
  for (std::uint64_t cluster = first; cluster < 1700; cluster += fill == 'b' ? 1 : 2)
    builder.data(cluster, fill);
  return builder;
}

// base <- top <- overlay, and a file of root's, to which the name `link` leads.
class Folder {
 public:
  explicit Folder(const std::string& base_format) {
    std::filesystem::create_directory(folder_ / "images");
    std::filesystem::create_directory(folder_ / "private");
    if (base_format == "raw")
      testing::write_file(path("base"), std::string(1 << 20, 'b'));
    else
      with_data(over("", ""), 'b').build().write_to(path("base"));
    with_data(over("base", base_format), 't').build().write_to(path("top"));
    ImageBuilder(over("top", "qcow2")).data(3, 'o').build().write_to(path("overlay"));
  }

  // The file of root's looks like `image`, and so cannot be told by its content. What a scan of the
  // folder would find by itself is another matter.
  void make_victim_of(const std::string& image) const {
    if (image == "overlay")
      ImageBuilder(over("", "")).data(1, 'v').build().write_to(victim());
    else
      std::filesystem::copy_file(path(image), victim());
    std::filesystem::create_symlink(victim(), path("link"));
  }
  [[nodiscard]] std::string path(const std::string& name) const {
    return folder_.path() + "/images/" + name;
  }
  [[nodiscard]] std::string victim() const { return folder_ / "private/victim"; }
  void exchange(const std::string& name) const {
    (void)::renameat2(AT_FDCWD, path(name).c_str(), AT_FDCWD, path("link").c_str(),
                      RENAME_EXCHANGE);
  }

 private:
  TempFolder folder_;
};

struct Attack {
  Words command;
  std::string exchanged;
  std::string base_format = "qcow2";
  Words before{};  // a run that is interrupted
};

// Returns how many files the verb opens.
int attack_at(const Attack& attack, int call) {
  const Folder folder(attack.base_format);
  if (attack.command.front() == "repair")
    testing::write_file(folder.path("top"), testing::damage("l2-entry-twice").image());
  if (!attack.before.empty()) {
    REQUIRE(testing::interrupt_coldchain_in(folder.path(""), attack.before).status ==
            testing::status_of_interrupted);
    REQUIRE(std::filesystem::exists(folder.path("top.coldchain-pending")));
  }
  folder.make_victim_of(attack.exchanged);
  const std::string before = read_file(folder.victim());
  FakeWorld world;
  std::atomic<int> calls = 0;  // a scan opens files in several threads
  world.before_open = [&] {
    if (++calls == call)
      folder.exchange(attack.exchanged);
  };
  (void)run_coldchain_in(folder.path(""), attack.command, world);
  CHECK((read_file(folder.victim()) == before));
  CHECK_FALSE(std::filesystem::exists(folder.victim() + ".coldchain-pending"));
  CHECK_FALSE(std::filesystem::exists(folder.victim() + ".coldchain-undo"));
  return calls;
}

}  // namespace

TEST_CASE("change: a name that is exchanged while a verb runs leads no write elsewhere") {
  const std::vector<Attack> attacks{
      {{"commit", "--force", "-d", "top"}, "base", "raw"},
      {{"commit", "--force", "top"}, "base"},
      {{"commit", "--force", "top"}, "top"},
      {{"commit", "--reparent", "--yes", "top"}, "overlay"},
      {{"pull", "top"}, "top"},
      {{"rebase", "-b", "", "top"}, "top"},
      {{"rebase", "-u", "-b", "", "top"}, "top"},
      {{"tree", "."}, "base"},
      {{"tree", "."}, "base", "raw"},
      {{"allocate", "top"}, "top"},
      {{"allocate", "-f", "raw", "base"}, "base", "raw"},
      {{"repair", "top"}, "top"},
      {{"resume", "--force", "top"}, "top", "qcow2", {"commit", "--force", "top"}},
      {{"resume", "--force", "top"}, "base", "raw", {"commit", "--force", "top"}},
      {{"resume", "--force", "base"}, "top", "qcow2", {"commit", "--force", "top"}},
      {{"resume", "top"}, "top", "qcow2", {"pull", "top"}}};
  for (const Attack& attack : attacks) {
    CAPTURE(attack.command.front());
    CAPTURE(attack.exchanged);
    // What the operand leads to when it is opened first, the user has named.
    const int first = attack.exchanged == attack.command.back() ? 2 : 1;
    int calls = first;
    for (int call = first; call <= calls; ++call) {
      CAPTURE(call);
      // What comes after the exchange may be more, or less.
      calls = std::max(calls, std::min(attack_at(attack, call), 60));
    }
    CHECK(calls >= first);
  }
}
