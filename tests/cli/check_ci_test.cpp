// SPDX-License-Identifier: MIT
// The forms of check's output that CI systems read.
#include "damage.hpp"
#include "fake_world.hpp"
#include "image_builder.hpp"

#include <coldchain/base/bytes.hpp>
#include <coldchain/finding/catalogue.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <pugixml.hpp>

using namespace coldchain;
using testing::FakeWorld;
using testing::ImageBuilder;
using testing::ImageOptions;
using testing::Ran;

namespace {

Bytes sound() {
  return ImageBuilder(ImageOptions{}).data(0, 'a').compressed(3, 'c').build().flat();
}

Bytes bytes_from(std::string_view text) {
  return {text_bytes(text).begin(), text_bytes(text).end()};
}

Ran check(std::vector<std::string> arguments, std::map<std::string, Bytes> files) {
  FakeWorld world;
  world.memory = std::move(files);
  arguments.insert(arguments.begin(), "check");
  const int status = cli::run(arguments, world);
  return {status, world.out_text, world.err_text};
}

}  // namespace

TEST_CASE("check: SARIF and JUnit tell what is denied as a failure") {
  const std::map<std::string, Bytes> files = {{"a", bytes_from("KDMV")}, {"b", Bytes(512)}};
  const Ran sarif = check({"--deny", "upload", "--output=sarif", "a", "b"}, files);
  CHECK(sarif.status == 2);
  const auto results = nlohmann::json::parse(sarif.out)["runs"][0]["results"];
  CHECK(results[0]["ruleId"] == "upload-format-not-allowed");
  CHECK(results[0]["level"] == "error");
  CHECK(results[2]["ruleId"] == "upload-is-raw");
  CHECK(results[2]["level"] == "note");
  const Ran junit = check({"--deny", "upload", "--output=junit", "a"}, files);
  CHECK(junit.status == 2);
  pugi::xml_document document;
  REQUIRE(document.load_string(junit.out.c_str()));
  const auto suite = document.child("testsuites").first_child();
  CHECK(suite.attribute("failures").as_int() == 2);
  CHECK(std::string(suite.first_child().attribute("name").value()) == "upload-format-not-allowed");
}

TEST_CASE("check: SARIF gives a denied finding the level error, whatever its severity") {
  const std::map<std::string, Bytes> files = {{"leaky", testing::damage("refcount-two").image()},
                                              {"raw", Bytes(512)}};
  const auto level_of = [&](const std::vector<std::string>& deny, const std::string& rule) {
    std::vector<std::string> arguments = deny;
    arguments.insert(arguments.end(), {"--output=sarif", "leaky", "raw"});
    const auto results = nlohmann::json::parse(check(arguments, files).out)["runs"][0]["results"];
    for (const auto& result : results) {
      if (result["ruleId"] == rule)
        return result["level"].get<std::string>();
    }
    return std::string("none");
  };
  CHECK(level_of({}, "cluster-leaked") == "warning");
  CHECK(level_of({"--deny=cluster-leaked"}, "cluster-leaked") == "error");
  CHECK(level_of({"--deny=upload"}, "upload-is-raw") == "note");
  CHECK(level_of({"--deny=upload-is-raw"}, "upload-is-raw") == "error");
}

TEST_CASE("check: SARIF has a result per finding with its place in the file") {
  const Ran ran =
      check({"--output=sarif", "a", "none"}, {{"a", testing::damage("refcount-two").image()}});
  const auto run = nlohmann::json::parse(ran.out)["runs"][0];
  CHECK(run["tool"]["driver"]["rules"].size() == finding::catalogue().size());
  REQUIRE(run["results"].size() == 3);
  CHECK("coldchain " + run["tool"]["driver"]["version"].get<std::string>() + "\n" ==
        testing::run_coldchain({"--version"}).out);
  const Ran odd = check({"--output=sarif", "a b%\n\xff"},
                        {{"a b%\n\xff", testing::damage("refcount-two").image()}});
  CHECK(odd.out.find("\"uri\": \"a%20b%25%0A%FF\"") != std::string::npos);
  CHECK(run["results"][0]["ruleId"] == "cluster-leaked");
  CHECK(run["results"][0]["level"] == "warning");
  CHECK(run["results"][1]["level"] == "error");
  const auto& place = run["results"][0]["locations"][0]["physicalLocation"];
  CHECK(place["artifactLocation"]["uri"] == "a");
  CHECK(place["region"]["byteOffset"] == 0x4000);
  CHECK(run["results"][2]["ruleId"] == "check-failed");
}

TEST_CASE("check: JUnit has a suite per image, and a failed case per finding above a note") {
  const Ran ran = check({"--output=junit", "a", "b"},
                        {{"a", testing::damage("refcount-two").image()}, {"b", sound()}});
  pugi::xml_document document;
  REQUIRE(document.load_string(ran.out.c_str()));
  const auto suites = document.child("testsuites");
  const auto first = suites.first_child();
  CHECK(std::string(first.attribute("name").value()) == "a");
  CHECK(first.attribute("failures").as_int() == 2);
  CHECK(suites.last_child().attribute("failures").as_int() == 0);
  CHECK(suites.last_child().attribute("tests").as_int() == 1);
}

TEST_CASE("check: JUnit and SARIF of several images are whole documents, golden") {
  const std::map<std::string, Bytes> files = {{"a<", testing::damage("refcount-two").image()},
                                              {"b", sound()}};
  const std::string ran = check({"--output=junit", "a<", "b"}, files).out;
  CHECK(
      ran.starts_with("<?xml version=\"1.0\"?>\n<testsuites>\n"
                      "  <testsuite name=\"a&lt;\" tests=\"2\" failures=\"2\">\n"
                      "    <testcase classname=\"a&lt;\" name=\"cluster-leaked\">\n"
                      "      <failure message=\""));
  CHECK(
      ran.ends_with("    </testcase>\n  </testsuite>\n"
                    "  <testsuite name=\"b\" tests=\"1\" failures=\"0\">\n"
                    "    <testcase classname=\"b\" name=\"check\" />\n"
                    "  </testsuite>\n</testsuites>\n"));
  const auto sarif = nlohmann::json::parse(check({"--output=sarif", "a<", "b"}, files).out);
  CHECK(sarif["runs"][0]["results"].size() == 2);
}
