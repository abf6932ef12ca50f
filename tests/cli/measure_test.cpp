// SPDX-License-Identifier: MIT
#include "fake_world.hpp"
#include "image_builder.hpp"
#include "oracle.hpp"
#include "temp_folder.hpp"

#include <doctest/doctest.h>

using namespace coldchain;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::Ran;
using testing::run_coldchain;
using testing::run_coldchain_in;
using testing::TempFolder;

namespace {

std::string sizes(std::uint64_t required, std::uint64_t full) {
  return "required size: " + std::to_string(required) +
         "\nfully allocated size: " + std::to_string(full) + "\n";
}

}  // namespace

TEST_CASE("measure: an empty disk needs its metadata, a raw one its size in whole sectors") {
  CHECK(run_coldchain({"measure", "--size", "1000"}).out == sizes(1024, 1024));
  CHECK(run_coldchain({"measure", "-O", "qcow2", "--size", "1G"}).out == sizes(393216, 1074135040));
  CHECK(run_coldchain({"measure", "-O", "qcow2", "-o", "preallocation=full", "--size", "1G"}).out ==
        sizes(1074135040, 1074135040));
}

TEST_CASE("measure: clusters in which something is not zero are counted, whoever provides them") {
  const TempFolder folder;
  ImageOptions options;
  options.size = 10 << 20;
  ImageBuilder(options).data(1, 'b').data(3, 'b').build().write_to(folder / "base");
  options.backing_file = "base";
  options.backing_format = "qcow2";
  ImageBuilder(options).zero(3).data(5, 't').build().write_to(folder / "top");
  const std::string out = run_coldchain_in(folder.path(), {"measure", "-O", "qcow2", "top"}).out;
  CHECK(out == sizes(327680 + 2 * 65536, 10813440) + "bitmaps size: 0\n");
  const std::string compat = "compat=0.10";
  CHECK(run_coldchain_in(folder.path(), {"measure", "-O", "qcow2", "-o", compat, "top"}).out ==
        sizes(327680 + 2 * 65536, 10813440));
  CHECK(run_coldchain_in(folder.path(), {"measure", "top"}).out == sizes(10 << 20, 10 << 20));
}

TEST_CASE("measure: what makes no sense is told") {
  const auto refused = [](const std::vector<std::string>& more, const std::string& why) {
    std::vector<std::string> arguments = {"measure"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Ran ran = run_coldchain(arguments);
    CHECK(ran.status == 1);
    CHECK_MESSAGE(ran.err.find(why) != std::string::npos, ran.err);
  };
  refused({}, "Either --size N or one filename");
  refused({"--size", "1", "x"}, "cannot be used together");
  refused({"-f", "raw", "--size", "1"}, "can only be used with a filename");
  refused({"-O", "vmdk", "--size", "1"}, "qcow2 and raw");
  refused({"--size", "8E"}, "image size");
  refused({"-O", "qcow2", "-o", "cluster_size=512", "--size", "1P"}, "too large");
  const auto refuses_option = [&](const std::string& option, const std::string& why) {
    refused({"-O", "qcow2", "-o", option, "--size", "1G"}, why);
  };
  refuses_option("foo=1", "Invalid parameter 'foo'");
  refuses_option("cluster_size=1000", "power of two");
  refuses_option("cluster_size=4M", "power of two");
  refuses_option("refcount_bits=3", "Refcount width");
  refuses_option("compat=0.10,refcount_bits=1", "compatibility level 1.1");
  refuses_option("compat=9", "Invalid compatibility level");
  refuses_option("extended_l2=on,cluster_size=4k", "at least 16384");
  refuses_option("extended_l2=perhaps", "expects 'on' or 'off'");
  refuses_option("preallocation=x", "invalid parameter value: x");
  refuses_option("encrypt.format=luks", "encrypted");
  refused({"-O", "raw", "-o", "cluster_size=4k", "--size", "1"}, "Invalid parameter");
}
