// SPDX-License-Identifier: MIT
#include "image_builder.hpp"
#include "temp_folder.hpp"

#include <filesystem>

#include <coldchain/graph/open.hpp>

#include <doctest/doctest.h>
#include <sys/stat.h>

using namespace coldchain;
using namespace coldchain::graph;
using finding::Code;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::TempFolder;

namespace {

ImageOptions over(std::string backing, std::string format = "qcow2") {
  ImageOptions options;
  options.backing_file = std::move(backing);
  options.backing_format = std::move(format);
  return options;
}

struct Opened {
  Opened(const std::string& path, io::OpenPolicy policy = {}, OpenRequest request = {})
      : files(io::system_files(policy).value()) {
    request.name = path;
    top = graph::open(*files, policy, request).value();
    chain = chain_of(*top);
  }
  std::unique_ptr<io::FileSource> files;
  std::unique_ptr<Node> top;
  std::vector<const Node*> chain;

  [[nodiscard]] bool has(std::size_t layer, Code code) const {
    for (const finding::Finding& finding : chain.at(layer)->findings) {
      if (finding.code == code)
        return true;
    }
    return false;
  }
};

}  // namespace

TEST_CASE("open: relative names are read from the overlay's folder, through links as spelled") {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "sub");
  testing::write_file(folder / "raw", std::string(1 << 20, 'x'));
  ImageBuilder(over("../raw", "raw")).build().write_to(folder / "sub/mid");
  std::filesystem::create_symlink("mid", folder / "sub/link");
  ImageBuilder(over("sub/link")).build().write_to(folder / "top");
  const Opened opened(folder / "top");
  REQUIRE(opened.chain.size() == 3);
  CHECK(opened.chain[1]->filename == folder / "sub/link");
  CHECK(opened.chain[2]->filename == folder / "sub/../raw");
  CHECK(opened.chain[2]->is_open());
  CHECK_FALSE(opened.top->gap.has_value());
}

TEST_CASE("open: each way in which a link can be broken has its finding, and the tree is told") {
  const TempFolder folder;
  ::mkfifo((folder / "fifo").c_str(), 0600);
  testing::write_file(folder / "text", "no image");
  const auto broken = [&](const ImageOptions& options) {
    ImageBuilder(options).build().write_to(folder / "top");
    Opened opened(folder / "top");
    REQUIRE(opened.chain.size() == 2);
    CHECK_FALSE(opened.chain[1]->is_open());
    CHECK(opened.chain[1]->gap.has_value());
    REQUIRE(opened.chain[1]->findings.size() == 1);
    return opened.chain[1]->findings[0].code;
  };
  CHECK(broken(over("none")) == Code::link_missing);
  CHECK(broken(over("fifo", "raw")) == Code::link_not_a_file);
  CHECK(broken(over(".", "raw")) == Code::link_not_a_file);
  CHECK(broken(over("text")) == Code::link_unreadable);
  CHECK(broken(over("text", "vmdk")) == Code::link_unreadable);
  CHECK(broken(over("text", "nonsense")) == Code::link_unreadable);
  CHECK(broken(over("nbd:host:1", "raw")) == Code::link_not_local);
  CHECK(broken(over("http://host/x", "raw")) == Code::link_not_local);
  CHECK(broken(over("json:{\"driver\":\"blkdebug\"}")) == Code::link_not_allowed);
  CHECK(broken(over("json:{\"driver\":\"quorum\",\"children\":[]}")) == Code::link_not_allowed);
  CHECK(broken(over("top")) == Code::link_loop);
}

TEST_CASE("open: a loop is found by device and inode however it is spelled") {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "d");
  ImageBuilder(over("d/../hard")).build().write_to(folder / "a");
  std::filesystem::create_hard_link(folder / "a", folder / "target");
  std::filesystem::create_symlink("target", folder / "hard");
  const Opened self(folder / "a");
  REQUIRE(self.chain.size() == 2);
  CHECK(self.has(1, Code::link_loop));

  ImageBuilder(over("y")).build().write_to(folder / "x");
  ImageBuilder(over("./x")).build().write_to(folder / "y");
  const Opened mutual(folder / "x");
  REQUIRE(mutual.chain.size() == 3);
  CHECK(mutual.has(2, Code::link_loop));
}

TEST_CASE(
    "open: a backing file without a recorded format is probed, and its own links stop there") {
  const TempFolder folder;
  testing::write_file(folder / "secret", std::string(65536, 's'));
  ImageBuilder(over("secret", "raw")).build().write_to(folder / "guest-written");
  ImageBuilder(over("guest-written", "")).build().write_to(folder / "top");
  const Opened stopped(folder / "top");
  REQUIRE(stopped.chain.size() == 2);
  CHECK(stopped.has(1, Code::link_format_not_recorded));
  CHECK(stopped.has(1, Code::link_probed_has_links));
  CHECK(stopped.chain[1]->is_open());
  CHECK(stopped.chain[1]->gap.has_value());

  io::OpenPolicy policy;
  policy.allow_probe = true;
  const Opened followed(folder / "top", policy);
  CHECK(followed.chain.size() == 3);
  CHECK_FALSE(followed.chain[1]->gap.has_value());

  ImageBuilder(ImageOptions{}).build().write_to(folder / "alone");
  ImageBuilder(over("alone", "")).build().write_to(folder / "top");
  const Opened harmless(folder / "top");
  REQUIRE(harmless.chain.size() == 2);
  CHECK_FALSE(harmless.chain[1]->gap.has_value());
}

TEST_CASE("open: a probed file that names a data file is not followed either") {
  const TempFolder folder;
  testing::write_file(folder / "secret", std::string(65536, 's'));
  ImageOptions options;
  options.data_file = folder / "secret";
  ImageBuilder(options).build().write_to(folder / "guest-written");
  ImageBuilder(over("guest-written", "")).build().write_to(folder / "top");
  const Opened stopped(folder / "top");
  CHECK(stopped.has(1, Code::link_probed_has_links));
  CHECK(stopped.chain[1]->data_file == nullptr);
}

TEST_CASE("open: a recorded raw format is believed, and a contradiction is noted") {
  const TempFolder folder;
  ImageBuilder(ImageOptions{}).build().write_to(folder / "looks-like-qcow2");
  ImageBuilder(over("looks-like-qcow2", "raw")).build().write_to(folder / "top");
  const Opened opened(folder / "top");
  REQUIRE(opened.chain.size() == 2);
  CHECK(opened.chain[1]->raw_image() != nullptr);
  CHECK(opened.has(1, Code::link_format_contradicts));
}

TEST_CASE("open: a data file's name is a literal path, never a protocol or json") {
  const TempFolder folder;
  ImageOptions options;
  options.data_file = "json:{\"driver\":\"file\",\"filename\":\"x\"}";
  ImageBuilder(options).build().write_to(folder / "top");
  testing::write_file(folder / "x", "");
  const Opened missing(folder / "top");
  CHECK(missing.has(0, Code::link_missing));
  testing::write_file(folder / options.data_file, "");
  const Opened literal(folder / "top");
  CHECK(literal.top->data_file != nullptr);
}

TEST_CASE("open: policies of root and no-follow are findings, not failures") {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "in");
  testing::write_file(folder / "outside", std::string(65536, 'x'));
  ImageBuilder(over("../outside", "raw")).build().write_to(folder / "in/top");
  io::OpenPolicy rooted;
  rooted.root = folder / "in";
  CHECK(Opened(folder / "in/top", rooted).has(1, Code::link_outside_root));
  io::OpenPolicy alone;
  alone.follow = false;
  const Opened opened(folder / "in/top", alone);
  CHECK(opened.has(1, Code::link_not_followed));
  CHECK(opened.chain[1]->file == nullptr);
}

TEST_CASE("open: under a sysroot every name that an image records is read inside it") {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "disk/images");
  std::filesystem::create_symlink("disk", folder / "mnt");
  const std::string raw(1 << 20, 'x');
  testing::write_file(folder / "out", raw);
  testing::write_file(folder / "disk/images/base", raw);
  std::filesystem::create_symlink(folder / "out", folder / "disk/images/to-out");
  std::filesystem::create_symlink("/images/base", folder / "disk/images/to-base");
  std::filesystem::create_symlink("../../../images/base", folder / "disk/images/relative-to-base");
  std::filesystem::create_symlink("disk/images/top", folder / "outside-link");
  const std::string top = folder / "disk/images/top";
  const auto reads = [&](const std::string& name, const std::string& sysroot) {
    CAPTURE(name);
    ImageBuilder(over(name, "raw")).build().write_to(top);
    io::OpenPolicy policy;
    policy.sysroot = sysroot;
    bool all = true;
    for (const std::string& operand :
         {top, folder / "mnt/images/top", folder / "outside-link", std::string("/images/top")}) {
      const Opened opened(operand, policy);
      REQUIRE(opened.chain.size() == 2);
      CHECK(opened.chain[0]->filename == "/images/top");
      all = all && opened.chain[1]->is_open();
      CHECK(opened.chain[1]->is_open() != opened.has(1, Code::link_missing));
    }
    return all;
  };
  for (const std::string& sysroot : {folder / "disk", folder / "mnt"}) {
    for (const char* name : {"base", "/images/base", "../images/base", "../../../images/base",
                             "to-base", "relative-to-base", "/images/to-base"})
      CHECK(reads(name, sysroot));
    for (const std::string& name : {std::string("../../out"), folder / "out", std::string("to-out"),
                                    folder / "disk/images/base", folder / "mnt/images/base"})
      CHECK_FALSE(reads(name, sysroot));
  }
  // There is such a path inside: that one is read.
  std::filesystem::create_directories((folder / "disk") + (folder / "disk/images"));
  testing::write_file((folder / "disk") + (folder / "disk/images/base"), "inner");
  CHECK(reads(folder / "disk/images/base", folder / "disk"));
}

TEST_CASE("open: layers of other sizes and a changed backing file are noted") {
  const TempFolder folder;
  testing::write_file(folder / "short", std::string(65536, 'x'));
  ImageBuilder(over("short", "raw")).build().write_to(folder / "top");
  CHECK(Opened(folder / "top").has(1, Code::overlay_longer));
  testing::write_file(folder / "long", std::string(2 << 20, 'x'));
  ImageBuilder(over("long", "raw")).build().write_to(folder / "top");
  CHECK(Opened(folder / "top").has(1, Code::overlay_shorter));
  CHECK_FALSE(Opened(folder / "top").has(1, Code::backing_changed));
  std::filesystem::last_write_time(
      folder / "top", std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  CHECK(Opened(folder / "top").has(1, Code::backing_changed));
}

TEST_CASE("open: at most 1,024 layers are followed") {
  const TempFolder folder;
  for (int i = 0; i < 1030; ++i) {
    ImageOptions options;
    options.cluster_bits = 9;
    options.size = 512;
    if (i > 0) {
      options.backing_file = std::to_string(i - 1);
      options.backing_format = "qcow2";
    }
    ImageBuilder(options).build().write_to(folder / std::to_string(i));
  }
  const Opened opened(folder / "1029");
  CHECK(opened.chain.size() == max_layers);
  CHECK(opened.has(max_layers - 1, Code::link_too_deep));
  CHECK(Opened(folder / "1023").chain.size() == 1024);
  CHECK_FALSE(Opened(folder / "1023").has(1023, Code::link_too_deep));
}

TEST_CASE(
    "open: a relative name in json: or file: form is resolved against the overlay and noted") {
  const TempFolder folder;
  testing::write_file(folder / "base", std::string(65536, 'x'));
  ImageBuilder(over("file:base", "raw")).build().write_to(folder / "top");
  const Opened opened(folder / "top");
  CHECK(opened.chain.at(1)->is_open());
  CHECK(opened.has(1, Code::link_relative_json));
}

TEST_CASE("open: the recorded format stands above the driver of a json: name") {
  const TempFolder folder;
  ImageBuilder(ImageOptions{}).data(0, 1).build().write_to(folder / "base");
  ImageBuilder(
      over("json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"base\"}}",
           "raw"))
      .build()
      .write_to(folder / "top");
  CHECK(Opened(folder / "top").chain.at(1)->raw_image() != nullptr);
}

TEST_CASE("open: what the user types starts at the current directory, what an image says at it") {
  const TempFolder folder;
  std::filesystem::create_directories(folder / "sub");
  ImageBuilder(over("none")).build().write_to(folder / "sub/top");
  testing::write_file(folder / "base", std::string(1 << 20, 'x'));
  OpenRequest request;
  request.is_image_opts = true;
  const Opened opened("driver=qcow2,file.filename=" + (folder / "sub/top") +
                          ",backing.driver=raw,backing.file.filename=" + (folder / "base"),
                      {}, request);
  CHECK(opened.chain.at(1)->is_open());
  CHECK(opened.chain.at(1)->name == folder / "base");

  ImageOptions options;
  options.data_file = "unused";
  ImageBuilder(options).build().write_to(folder / "sub/external");
  testing::write_file(folder / "sub/data", "");
  const std::string name =
      "json:{\"driver\":\"qcow2\",\"file.filename\":\"external\",\"data-file.filename\":\"data\"}";
  ImageBuilder(over(name)).build().write_to(folder / "sub/json");
  CHECK(Opened(folder / "sub/json").chain.at(1)->data_filename == folder / "sub/data");
}

TEST_CASE(
    "open: a data file that is no plain local file is not opened, nor the recorded one instead") {
  const TempFolder folder;
  ImageOptions options;
  options.data_file = "data";
  ImageBuilder(options).build().write_to(folder / "external");
  testing::write_file(folder / "data", "");
  const Opened opened("json:{\"driver\":\"qcow2\",\"file.filename\":\"" + (folder / "external") +
                      "\",\"data-file\":{\"driver\":\"nbd\",\"host\":\"h\"}}");
  CHECK(opened.has(0, Code::link_not_allowed));
  CHECK(opened.top->data_file == nullptr);
}

TEST_CASE("open: an explicit file driver means raw bytes; a window needs the raw driver") {
  const TempFolder folder;
  ImageBuilder(ImageOptions{}).build().write_to(folder / "a");
  const Opened bytes("json:{\"driver\":\"file\",\"filename\":\"" + (folder / "a") + "\"}");
  CHECK(bytes.top->raw_image() != nullptr);
  CHECK(bytes.top->format == "file");
  const auto files = io::system_files({}).value();
  OpenRequest request;
  request.name =
      "json:{\"driver\":\"raw\",\"offset\":512,\"file.filename\":\"" + (folder / "a") + "\"}";
  request.format = "qcow2";
  CHECK_FALSE(graph::open(*files, {}, request).has_value());
}

TEST_CASE("open: the path of a file that was found is not parsed") {
  const TempFolder folder;
  const std::string here = std::filesystem::current_path().string();
  std::filesystem::current_path(folder.path());
  for (const char* name : {"nbd:x", "file:x", "json:{}", ":x"}) {
    ImageBuilder(over("base")).build().write_to(folder / name);
    OpenRequest request;
    request.is_path = true;
    const Opened opened(name, {}, request);
    CHECK(opened.top->filename == name);
    CHECK(opened.chain.size() == 2);
    CHECK(opened.has(1, Code::link_missing));
  }
  std::filesystem::current_path(here);
}

TEST_CASE("open: a top that cannot be opened is an error") {
  const TempFolder folder;
  const auto files = io::system_files({}).value();
  const auto fails = [&](const std::string& name, std::optional<std::string> format) {
    OpenRequest request;
    request.name = name;
    request.format = std::move(format);
    return !graph::open(*files, {}, request).has_value();
  };
  testing::write_file(folder / "vmdk", "KDMV" + std::string(1000, 'x'));
  CHECK(fails(folder / "none", std::nullopt));
  CHECK(fails("nbd:localhost:1", std::nullopt));
  CHECK(fails(folder / "vmdk", std::nullopt));
  CHECK_FALSE(fails(folder / "vmdk", "raw"));
  CHECK(fails(folder / "vmdk", "qcow2"));
  CHECK(fails(folder / "vmdk", "nonsense"));
}

TEST_CASE("open: libvirt's probe takes an image that names a backing file as raw") {
  const TempFolder folder;
  testing::write_file(folder / "raw", std::string(65536, 'x'));
  ImageBuilder(over("raw", "raw")).build().write_to(folder / "top");
  OpenRequest request;
  request.probe_rule = ProbeRule::libvirt;
  const Opened demoted(folder / "top", {}, request);
  CHECK(demoted.top->raw_image() != nullptr);
  CHECK(demoted.chain.size() == 1);
  request.format = "qcow2";
  CHECK(Opened(folder / "top", {}, request).chain.size() == 2);
}
