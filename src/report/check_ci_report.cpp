// SPDX-License-Identifier: MIT
// What CI systems read: SARIF and JUnit.
#include <algorithm>
#include <sstream>

#include <coldchain/base/text.hpp>
#include <coldchain/report/check_report.hpp>
#include <coldchain/report/findings_report.hpp>
#include <coldchain/report/json_writer.hpp>

#include <fmt/format.h>
#include <pugixml.hpp>

namespace coldchain::report {

namespace {

using finding::Finding;
using finding::Severity;

// A path as a relative URI reference: what is not plain is percent-encoded, byte by byte.
std::string to_uri(std::string_view path) {
  constexpr std::string_view plain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
  std::string uri;
  for (const char c : path) {
    if (plain.find(c) != std::string_view::npos)
      uri += c;
    else
      uri += fmt::format("%{:02X}", static_cast<unsigned>(static_cast<unsigned char>(c)));
  }
  return uri;
}

// SARIF 2.1.0, "level".
std::string_view sarif_level(Severity severity) {
  if (severity == Severity::note)
    return "note";
  return severity == Severity::leak ? "warning" : "error";
}

void write_sarif_result(JsonWriter& json, std::string_view rule, std::string_view level,
                        const std::string& message, const std::string& filename,
                        const HostRange& host) {
  json.begin_object().member("ruleId", rule).member("level", level);
  json.key("message").begin_object().member("text", message).end_object();
  json.key("locations").begin_array().begin_object().key("physicalLocation").begin_object();
  json.key("artifactLocation").begin_object().member("uri", to_uri(filename)).end_object();
  if (!host.empty())
    json.key("region")
        .begin_object()
        .member("byteOffset", host.begin.value)
        .member("byteLength", host.size())
        .end_object();
  json.end_object().end_object().end_array().end_object();
}

void write_sarif_rules(JsonWriter& json) {
  json.key("rules").begin_array();
  for (const finding::Row& row : finding::catalogue()) {
    json.begin_object().member("id", row.slug);
    json.key("shortDescription").begin_object().member("text", row.meaning).end_object();
    json.key("help").begin_object().member("text", row.advice).end_object().end_object();
  }
  json.end_array();
}

}  // namespace

std::string check_sarif(const std::vector<CheckedImage>& images) {
  JsonWriter json;
  json.begin_object()
      .member("$schema", "https://json.schemastore.org/sarif-2.1.0.json")
      .member("version", "2.1.0");
  json.key("runs").begin_array().begin_object();
  json.key("tool").begin_object().key("driver").begin_object().member("name", "coldchain");
  write_sarif_rules(json);
  json.end_object().end_object();
  json.key("results").begin_array();
  for (const CheckedImage& image : images) {
    for (const Finding& finding : image.findings) {
      const finding::Row& row = finding::row(finding.code);
      write_sarif_result(
          json, row.slug, is_denied(image, finding) ? "error" : sarif_level(row.severity),
          fmt::format("{} {}", row.meaning, place_of(finding)), image.filename, finding.host);
    }
    for (const std::string& failure : image.failures)
      write_sarif_result(json, "check-failed", "error", failure, image.filename, {});
  }
  json.end_array().end_object().end_array().end_object();
  return json.take() + "\n";
}

std::string check_junit(const std::vector<CheckedImage>& images) {
  pugi::xml_document document;
  pugi::xml_node suites = document.append_child("testsuites");
  for (const CheckedImage& image : images) {
    const std::string name = to_terminal(image.filename);
    pugi::xml_node suite = suites.append_child("testsuite");
    suite.append_attribute("name") = name.c_str();
    unsigned failures = 0;
    unsigned tests = 0;
    const auto add_case = [&](std::string_view title, const std::string& problem) {
      pugi::xml_node test = suite.append_child("testcase");
      test.append_attribute("classname") = name.c_str();
      test.append_attribute("name") = std::string(title).c_str();
      ++tests;
      if (problem.empty())
        return;
      test.append_child("failure").append_attribute("message") = to_terminal(problem).c_str();
      ++failures;
    };
    for (const Finding& finding : image.findings) {
      const finding::Row& row = finding::row(finding.code);
      if (row.severity > Severity::note || is_denied(image, finding))
        add_case(row.slug, fmt::format("{} {}", row.meaning, place_of(finding)));
    }
    for (const std::string& failure : image.failures)
      add_case("check", failure);
    if (tests == 0)
      add_case("check", "");
    suite.append_attribute("tests") = tests;
    suite.append_attribute("failures") = failures;
  }
  std::ostringstream out;
  document.save(out, "  ");
  return out.str();
}

}  // namespace coldchain::report
