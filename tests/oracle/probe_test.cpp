// SPDX-License-Identifier: MIT
// The probe against qemu-img: without -f, qemu-img must say what it says with the format that
// coldchain probes. Each driver has its own messages, so that this tells all formats apart, also
// where the file cannot be opened.
#include "oracle.hpp"
#include "seeds.hpp"
#include "temp_folder.hpp"

#include <random>

#include <coldchain/graph/probe.hpp>

using namespace coldchain;
using namespace std::string_literals;
using testing::quoted;
using testing::run_in;
using testing::TempFolder;

namespace {

// Strings at their offsets, with zeros in between.
std::string laid_out(const std::vector<std::pair<std::size_t, std::string>>& parts) {
  std::string bytes;
  for (const auto& [offset, part] : parts) {
    bytes.resize(std::max(bytes.size(), offset + part.size()));
    bytes.replace(offset, part.size(), part);
  }
  return bytes;
}

std::string bochs(const std::string& version) {
  return laid_out({{0, "Bochs Virtual HD Image"}, {32, "Redolog"}, {48, "Growing"}, {64, version}});
}

const std::string cloop =
    "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";

std::vector<std::string> magics() {
  return {"QFI\xfb\0\0\0\3"s,
          "QFI\xfb\0\0\0\2"s,
          "QFI\xfb\0\0\0\1"s,
          "QED\0"s,
          "KDMV",
          "COWD",
          "version=1\n",
          "conectix",
          "vhdxfile",
          "LUKS\xba\xbe\0\1"s,
          "WithoutFreeSpace\2\0\0\0"s,
          "WithouFreSpacExt\2\0\0\0"s,
          laid_out({{64, "\x7f\x10\xda\xbe"}}),
          bochs("\0\0\1\0"s),
          bochs("\0\0\2\0"s),
          cloop};
}

// One byte wrong, each in turn; shorter and shifted; other versions.
std::vector<std::string> near_misses() {
  std::vector<std::string> samples = {"QFI\xfb\0\0\0\0"s,
                                      "QFI\xfb\0\0\0\4"s,
                                      "QFI\xfb\xff\0\0\0"s,
                                      "LUKS\xba\xbe\0\2"s,
                                      "WithoutFreeSpace\1\0\0\0"s,
                                      "WithouFreSpacExt\3\0\0\0"s,
                                      bochs("\0\0\3\0"s),
                                      bochs("\0\0\1"s),
                                      "# Disk DescriptorFile\n",
                                      "",
                                      "\0"s};
  for (const std::string& magic : magics()) {
    for (std::size_t i = 0; i < magic.size(); ++i) {
      if (magic[i] == '\0' && i % 8 != 0)
        continue;
      std::string wrong = magic;
      wrong[i] = static_cast<char>(wrong[i] ^ 0x20);
      samples.push_back(wrong);
    }
    samples.push_back(magic.substr(0, magic.size() - 1));
    samples.push_back("\0"s + magic);
    samples.push_back(std::string(512, '\0') + magic);
  }
  return samples;
}

std::vector<std::string> descriptors() {
  std::vector<std::string> samples;
  for (const std::string before : {"", "#x\n", "#x\r\n", "#\n#\n", "  \n", " \r\n", " \r\r\n", "\n",
                                   "\r\n", "\t\n", "x\n", " x\n", "# x\n   \n#\n", " "}) {
    for (const std::string version : {"1", "2", "3", "0", "4", "11", ""}) {
      for (const std::string after : {"\n", "\r\n", "", "\r", " \n"})
        samples.push_back(before + "version=" + version + after + "CID=1\n");
    }
  }
  // The line may end where the probed bytes do, and not behind them.
  for (const std::size_t length : {500U, 501U, 502U, 503U, 511U, 512U}) {
    samples.push_back(std::string(length, '#') + "\nversion=1\n");
    samples.push_back(std::string(length, '#') + "\nversion=1\r\n");
    samples.push_back(std::string(length, ' ') + "\nversion=1\n");
  }
  return samples;
}

// Magics over each other, at the place where they belong or beside it.
std::string mix(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const std::vector<std::string> all = magics();
  std::string bytes(random() % 2 == 0 ? 600 : random() % 600, '\0');
  for (std::uint64_t i = 2 + random() % 2; i > 0; --i) {
    const std::string& magic = all[random() % all.size()];
    const std::size_t offset = random() % 4 == 0 ? random() % 80 : 0;
    for (std::size_t at = 0; at < magic.size() && offset + at < bytes.size(); ++at) {
      if (magic[at] != '\0' || random() % 8 == 0)
        bytes[offset + at] = magic[at];
    }
  }
  return bytes;
}

class Comparison {
 public:
  void look_at(const std::string& bytes, const std::string& name) {
    testing::write_file(folder_ / name, bytes);
    const std::string format(graph::probe_format(text_bytes(bytes), name));
    const std::string image = quoted(name);
    const auto ran =
        run_in(folder_.path(), "qemu-img info " + image + " >probed 2>&1; " + "qemu-img info -f " +
                                   format + " " + image +
                                   " >forced 2>&1; cmp probed forced && test -s forced");
    CAPTURE(bytes);
    CAPTURE(name);
    CAPTURE(format);
    CHECK_MESSAGE(ran.status == 0, ran.out);
    ++by_format_[format];
  }
  [[nodiscard]] const std::map<std::string, int>& by_format() const { return by_format_; }

 private:
  TempFolder folder_;
  std::map<std::string, int> by_format_;
};

}  // namespace

TEST_CASE("oracle: the probe takes magics, near misses and descriptors for what qemu-img does") {
  if (!testing::have_oracles()) {
    MESSAGE("skipped: QEMU's tools are not installed");
    return;
  }
  Comparison comparison;
  for (const auto& samples : {magics(), near_misses(), descriptors()}) {
    for (const std::string& bytes : samples)
      comparison.look_at(bytes, "x");
  }
  for (const std::string name : {"x.dmg", "X.DMG", ".dmg", "a.dmg.raw", "dmg"}) {
    for (const std::string& bytes : {""s, "\0"s, cloop, "KDMV"s, std::string(512, 'x')})
      comparison.look_at(bytes, name);
  }
  for (const char* format : {"qcow2", "qcow", "qed", "vmdk", "vpc", "vhdx", "luks", "parallels",
                             "vdi", "bochs", "cloop", "dmg", "raw"})
    CHECK_MESSAGE(comparison.by_format().contains(format), format);
}

TEST_CASE("oracle: the probe decides between formats that match at once as qemu-img does") {
  if (!testing::have_oracles())
    return;
  Comparison comparison;
  testing::for_each_seed(200, [&](std::uint64_t seed) { comparison.look_at(mix(seed), "x"); });
}

TEST_CASE("oracle: the probe sees the name that qemu-img's probe sees") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  for (const char* name : {"a.dmg", ".dmg", "A.DMG", "empty.dmg"})
    testing::write_file(folder / name, std::string(name == "empty.dmg"s ? 0 : 512, 'x'));
  const auto compare = [&](const std::vector<std::string>& arguments) {
    std::string command = "qemu-img info";
    std::vector<std::string> mine = {"info"};
    for (const std::string& argument : arguments) {
      command += " " + quoted(argument);
      mine.push_back(argument);
    }
    const auto theirs = run_in(folder.path(), command);
    const auto ran = testing::run_coldchain_in(folder.path(), mine);
    CAPTURE(command);
    CHECK(ran.status == theirs.status);
    CHECK(ran.out == theirs.out);
    CHECK((ran.status == 0) == (ran.err.find("the format is dmg") == std::string::npos));
    return ran.status;
  };
  CHECK(compare({"a.dmg"}) == 1);
  CHECK(compare({"./.dmg"}) == 1);
  CHECK(compare({"file:.dmg"}) == 1);
  CHECK(compare({folder / "a.dmg"}) == 1);
  CHECK(compare({".dmg"}) == 0);
  CHECK(compare({"A.DMG"}) == 0);
  CHECK(compare({"empty.dmg"}) == 0);
  CHECK(compare({"-f", "raw", "a.dmg"}) == 0);
  CHECK(compare({R"(json:{"file.filename":"a.dmg"})"}) == 0);
  CHECK(compare({"--image-opts", "file.filename=a.dmg"}) == 0);
}
