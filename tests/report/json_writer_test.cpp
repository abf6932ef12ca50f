// SPDX-License-Identifier: MIT
#include <coldchain/report/json_writer.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using namespace coldchain::report;

TEST_CASE("JsonWriter: lays documents out as QEMU does") {
  JsonWriter json;
  json.begin_object().member("a", 1).key("list").begin_array().value("x").value(true).end_array();
  json.key("empty").begin_array().end_array().end_object();
  CHECK(json.take() == R"({
    "a": 1,
    "list": [
        "x",
        true
    ],
    "empty": [
    ]
})");
}

TEST_CASE(
    "JsonWriter: names that are not UTF-8 keep their bytes in hex, and the document is JSON") {
  JsonWriter json;
  json.begin_object().name_member("name", "a\xff\"").name_member("fine", "b").end_object();
  const auto parsed = nlohmann::json::parse(json.take());
  CHECK(parsed.at("name-hex") == "61ff22");
  CHECK(parsed.at("fine") == "b");
  CHECK_FALSE(parsed.contains("fine-hex"));
}
