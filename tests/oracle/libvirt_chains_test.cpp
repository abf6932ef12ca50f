// SPDX-License-Identifier: MIT
// libvirt's rules for backing chains, case by case: which layers it sees, and what it refuses.
#include "image_builder.hpp"
#include "temp_folder.hpp"

#include <filesystem>

#include <coldchain/finding/finding.hpp>
#include <coldchain/graph/open.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::TempFolder;

namespace {

// What libvirt's test says of a chain: the formats of its layers from the top, or a failure.
struct Seen {
  std::vector<std::string> formats;
  bool fails = false;
};

class Folder {
 public:
  Folder() {
    testing::write_file(folder_ / "raw", std::string(65536, 'x'));
    make("qcow2", "raw", "raw");
    make("wrap", "qcow2", "qcow2");
  }
  void make(const std::string& name, const std::string& backing, const std::string& format) const {
    ImageOptions options;
    options.backing_file = backing;
    options.backing_format = format;
    ImageBuilder(options).build().write_to(folder_ / name);
  }
  [[nodiscard]] const TempFolder& folder() const { return folder_; }

  // `format` empty: probed by libvirt's rule.
  [[nodiscard]] Seen see(const std::string& name, const std::string& format) const {
    const auto files = io::system_files({}).value();
    graph::OpenRequest request;
    request.name = folder_ / name;
    request.probe_rule = graph::ProbeRule::libvirt;
    if (!format.empty())
      request.format = format;
    const auto top = graph::open(*files, {}, request);
    if (!top)
      return {{}, true};
    Seen seen;
    for (const graph::Node* node : graph::chain_of(**top)) {
      seen.formats.push_back(node->format);
      // A name of a protocol is a layer of its own for libvirt, which it does not open either.
      const bool network =
          !node->findings.empty() && node->findings[0].code == finding::Code::link_not_local;
      seen.fails = seen.fails || (node->gap.has_value() && !network);
    }
    return seen;
  }

 private:
  TempFolder folder_;
};

using Formats = std::vector<std::string>;

}  // namespace

TEST_CASE("libvirt: a missing image fails, a raw one is one layer, probed or not") {
  const Folder folder;
  CHECK(folder.see("missing", "").fails);
  CHECK(folder.see("raw", "raw").formats == Formats{"raw"});
  CHECK(folder.see("raw", "").formats == Formats{"raw"});
}

TEST_CASE("libvirt: recorded formats are followed to the end") {
  const Folder folder;
  CHECK(folder.see("qcow2", "qcow2").formats == Formats{"qcow2", "raw"});
  CHECK(folder.see("wrap", "qcow2").formats == Formats{"qcow2", "qcow2", "raw"});
  CHECK_FALSE(folder.see("wrap", "qcow2").fails);
}

TEST_CASE("libvirt: a probed top that names a backing file is one raw layer") {
  const Folder folder;
  CHECK(folder.see("qcow2", "").formats == Formats{"raw"});
  CHECK(folder.see("wrap", "").formats == Formats{"raw"});
  CHECK_FALSE(folder.see("wrap", "").fails);
}

TEST_CASE("libvirt: a probed layer without a backing file of its own passes") {
  const Folder folder;
  ImageBuilder(ImageOptions{}).build().write_to(folder.folder() / "alone");
  folder.make("auto-qcow2", "alone", "");
  folder.make("wrap2", "auto-qcow2", "qcow2");
  CHECK(folder.see("wrap2", "qcow2").formats == Formats{"qcow2", "qcow2", "qcow2"});
  CHECK_FALSE(folder.see("wrap2", "qcow2").fails);
  folder.make("auto-raw", "raw", "");
  CHECK(folder.see("auto-raw", "qcow2").formats == Formats{"qcow2", "raw"});
  CHECK_FALSE(folder.see("auto-raw", "qcow2").fails);
}

TEST_CASE("libvirt: a probed layer with a backing file of its own fails the chain") {
  const Folder folder;
  folder.make("auto", "qcow2", "");
  CHECK(folder.see("auto", "qcow2").fails);
  folder.make("wrap2", "auto", "qcow2");
  CHECK(folder.see("wrap2", "qcow2").fails);
}

TEST_CASE("libvirt: a missing backing file fails, a network one is a layer") {
  const Folder folder;
  folder.make("lost", "none", "qcow2");
  CHECK(folder.see("lost", "qcow2").fails);
  folder.make("network", "nbd+tcp://example.org:6000/blah", "raw");
  CHECK(folder.see("network", "qcow2").formats == Formats{"qcow2", "raw"});
  CHECK_FALSE(folder.see("network", "qcow2").fails);
}

TEST_CASE("libvirt: file: names a file of the overlay's folder") {
  const Folder folder;
  folder.make("prefixed", "file:raw", "raw");
  CHECK(folder.see("prefixed", "qcow2").formats == Formats{"qcow2", "raw"});
  CHECK_FALSE(folder.see("prefixed", "qcow2").fails);
}

TEST_CASE("libvirt: relative links keep their lexical paths") {
  const Folder folder;
  std::filesystem::create_directories(folder.folder() / "sub");
  folder.make("target1", "../raw", "raw");
  folder.make("target2", "../sub/link1", "qcow2");
  std::filesystem::create_symlink("../target1", folder.folder() / "sub/link1");
  std::filesystem::create_symlink("../target2", folder.folder() / "sub/link2");
  CHECK(folder.see("sub/link2", "qcow2").formats == Formats{"qcow2", "qcow2", "raw"});
  CHECK_FALSE(folder.see("sub/link2", "qcow2").fails);
}

TEST_CASE("libvirt: loops fail") {
  const Folder folder;
  folder.make("self", "self", "qcow2");
  CHECK(folder.see("self", "qcow2").fails);
  folder.make("a", "b", "qcow2");
  folder.make("b", "a", "qcow2");
  CHECK(folder.see("a", "qcow2").fails);
}

TEST_CASE("libvirt: data files are opened layer by layer, also below a recorded format") {
  const Folder folder;
  testing::write_file(folder.folder() / "data", std::string(65536, 'd'));
  ImageOptions options;
  options.data_file = "data";
  ImageBuilder(options).build().write_to(folder.folder() / "datafile");
  CHECK_FALSE(folder.see("datafile", "qcow2").fails);
  folder.make("over", "datafile", "qcow2");
  CHECK_FALSE(folder.see("over", "qcow2").fails);
  folder.make("over-auto", "datafile", "");
  CHECK(folder.see("over-auto", "qcow2").fails);
}

TEST_CASE("libvirt: a directory is no image") {
  const Folder folder;
  std::filesystem::create_directories(folder.folder() / "dir");
  CHECK(folder.see("dir", "raw").fails);
}
