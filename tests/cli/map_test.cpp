// SPDX-License-Identifier: MIT
#include "fake_world.hpp"
#include "image_builder.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using namespace coldchain;
using testing::ImageBuilder;
using testing::ImageOptions;

namespace {

// A top over a raw base; the image holds one cluster of each kind.
std::map<std::string, Bytes> some_files() {
  ImageOptions options;
  options.size = 6 * 65536;
  options.backing_file = "base";
  options.backing_format = "raw";
  ImageBuilder builder(options);
  builder.data(0, 1).snapshot("1", "empty").zero(1).compressed(2, 'c').zero_reserved(3);
  return {{"top", builder.build().flat()}, {"base", Bytes(5 * 65536, std::byte{'B'})}};
}

testing::Ran map_of(std::vector<std::string> arguments) {
  testing::FakeWorld world;
  world.memory = some_files();
  arguments.insert(arguments.begin(), "map");
  arguments.emplace_back("top");
  const int status = cli::run(arguments, world);
  return {status, world.out_text, world.err_text};
}

}  // namespace

TEST_CASE("map: provenance for people, golden") {
  CHECK(map_of({"--provenance"}).out ==
        R"(Offset          Length          Layer Kind             Mapped to       File
0               0x10000         0     data             0x10000         top
0x10000         0x10000         0     zero             -               top
0x20000         0x10000         0     compressed       -               top
0x30000         0x10000         0     zero (reserved)  0x30000         top
0x40000         0x10000         1     data             0x40000         base
0x50000         0x10000         -     past the end     -               -
)");
}

TEST_CASE("map: provenance in JSON adds file, index and compressed") {
  const auto json = nlohmann::json::parse(map_of({"--provenance", "--output=json"}).out);
  REQUIRE(json.size() == 6);
  CHECK(json[2]["compressed"] == true);
  CHECK(json[2]["file"] == "top");
  CHECK(json[4]["file"] == "base");
  CHECK(json[4]["index"] == 1);
  CHECK_FALSE(json[5].contains("file"));
}

TEST_CASE("map: summary for people, golden") {
  CHECK(map_of({"--summary"}).out ==
        "LAYER    DATA  COMPRESSED     ZERO  UNREADABLE    TOTAL  FILE\n"
        "    0  64 KiB      64 KiB  128 KiB         0 B  256 KiB  top\n"
        "    1  64 KiB         0 B      0 B         0 B   64 KiB  base\n"
        "    -                                            64 KiB  (in no layer: reads as zeros)\n"
        "  all                                           384 KiB\n");
}

TEST_CASE("map: the human map of compressed clusters ends as qemu-img's does") {
  const auto ran = map_of({});
  CHECK(ran.status == 1);
  CHECK(ran.out.find("0x10000         0x10000         top\n") != std::string::npos);
  CHECK(ran.err.find("File contains external, encrypted or compressed clusters") !=
        std::string::npos);
}

TEST_CASE("map: a layer alone, a snapshot, a part") {
  CHECK(
      map_of({"--layer", "1", "--output=json"}).out ==
      R"([{ "start": 0, "length": 327680, "depth": 0, "present": true, "zero": false, "data": true, "offset": 0}])"
      "\n");
  CHECK(map_of({"--snapshot", "empty", "--context", "qemu:allocation-depth"}).out ==
        "         0       65536    1  local\n"
        "     65536      327680    2  backing depth 2\n");
  CHECK(
      map_of({"-s", "64k", "-l", "64k", "--output=json"}).out ==
      R"([{ "start": 65536, "length": 65536, "depth": 0, "present": true, "zero": true, "data": false}])"
      "\n");
  CHECK(
      map_of({"-s", "1G", "--output=json"}).out ==
      R"([{ "start": 1073741824, "length": 0, "depth": 0, "present": false, "zero": false, "data": false}])"
      "\n");
}

TEST_CASE("map: bad arguments are told") {
  CHECK(map_of({"--layer", "9"}).err.find("there is no layer 9") != std::string::npos);
  CHECK(map_of({"--layer", "x"}).status == 1);
  CHECK(map_of({"--snapshot", "none"}).err.find("no internal snapshot 'none'") !=
        std::string::npos);
  CHECK(map_of({"--context", "x"}).err.find("unknown context 'x'") != std::string::npos);
  CHECK(map_of({"-s", "-1"}).status == 1);
  CHECK(map_of({"-l", "1q"}).err.find("Invalid max length '1q'") != std::string::npos);
  CHECK(map_of({"--summary", "--provenance"}).status == 1);
}

TEST_CASE("map: a context in nbdinfo's JSON") {
  CHECK(map_of({"--context", "base:allocation", "--output=json"}).out == R"([
{ "offset": 0, "length": 65536, "type": 0, "description": "data"},
{ "offset": 65536, "length": 65536, "type": 3, "description": "hole,zero"},
{ "offset": 131072, "length": 65536, "type": 0, "description": "data"},
{ "offset": 196608, "length": 65536, "type": 3, "description": "hole,zero"},
{ "offset": 262144, "length": 65536, "type": 0, "description": "data"},
{ "offset": 327680, "length": 65536, "type": 3, "description": "hole,zero"}
]
)");
}

TEST_CASE("map: of one layer with a backing file, what it does not have is not called zeros") {
  const auto json = map_of({"--layer", "0", "--output=json"});
  CHECK(json.out.find("\"present\": false, \"zero\": false") != std::string::npos);
  CHECK(json.out.find("\"present\": false, \"zero\": true") == std::string::npos);
  const auto provenance = map_of({"--layer", "0", "--provenance"});
  CHECK(provenance.out.find("not in layer") != std::string::npos);
  CHECK(provenance.out.find("absent") == std::string::npos);
  const auto summary = map_of({"--layer", "0", "--summary"});
  CHECK(summary.out.find("(not in this layer)") != std::string::npos);
  CHECK(summary.out.find("reads as zeros") == std::string::npos);
}
