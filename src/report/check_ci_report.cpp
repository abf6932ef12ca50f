// SPDX-License-Identifier: MIT
// What CI systems read: SARIF and JUnit.
#include <algorithm>
#include <sstream>
#include <utility>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
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

std::string sentence_of(const Finding& finding) {
  return fmt::format("{} {}", finding::row(finding.code).meaning, place_of(finding));
}

// Calls visit(title, problem) for each test case of an image; `problem` is empty if it passed.
template <class Visit>
Result<void> for_each_case(const CheckedImage& image, const Visit& visit) {
  bool is_any = false;
  for (const Finding& finding : image.findings) {
    const finding::Row& row = finding::row(finding.code);
    if (row.severity == Severity::note && !is_denied(image, finding))
      continue;
    is_any = true;
    TRY(visit(row.slug, &finding, std::string_view()));
  }
  for (const std::string& failure : image.failures) {
    is_any = true;
    TRY(visit(std::string_view("check"), static_cast<const Finding*>(nullptr), failure));
  }
  return is_any ? Result<void>{}
                : visit(std::string_view("check"), static_cast<const Finding*>(nullptr),
                        std::string_view());
}

// An element of its own as text, so deep in the document.
std::string element_text(const pugi::xml_node& element, unsigned depth) {
  std::ostringstream out;
  element.print(out, "  ", pugi::format_default, pugi::encoding_auto, depth);
  return out.str();
}

}  // namespace

Result<void> CiWriter::begin() {
  if (form_ == Form::junit)
    return {};  // whether there are suites decides how the document begins
  json_.begin_object()
      .member("$schema", "https://json.schemastore.org/sarif-2.1.0.json")
      .member("version", "2.1.0");
  json_.key("runs").begin_array().begin_object();
  json_.key("tool").begin_object().key("driver").begin_object();
  json_.member("name", "coldchain").member("version", version_);
  write_sarif_rules(json_);
  json_.end_object().end_object();
  json_.key("results").begin_array();
  return {};
}

Result<void> CiWriter::add(const CheckedImage& image) {
  return form_ == Form::sarif ? add_sarif(image) : add_junit(image);
}

Result<void> CiWriter::end() {
  if (form_ == Form::sarif) {
    json_.end_array().end_object().end_array().end_object();
    return (*sink_)(json_.take() + "\n");
  }
  return (*sink_)(has_suites_ ? "</testsuites>\n" : "<?xml version=\"1.0\"?>\n<testsuites />\n");
}

Result<void> CiWriter::add_sarif(const CheckedImage& image) {
  for (const Finding& finding : image.findings) {
    const finding::Row& row = finding::row(finding.code);
    write_sarif_result(json_, row.slug,
                       is_denied(image, finding) ? "error" : sarif_level(row.severity),
                       sentence_of(finding), image.filename, finding.host);
    if (json_.size() >= flush_at)
      TRY((*sink_)(json_.take()));
  }
  for (const std::string& failure : image.failures)
    write_sarif_result(json_, "check-failed", "error", failure, image.filename, {});
  return (*sink_)(json_.take());
}

Result<void> CiWriter::add_junit(const CheckedImage& image) {
  const std::string name = to_terminal(image.filename);
  unsigned tests = 0;
  unsigned failures = 0;
  TRY(for_each_case(
      image,
      [&](std::string_view, const Finding* finding, std::string_view failure) -> Result<void> {
        ++tests;
        failures += finding != nullptr || !failure.empty() ? 1 : 0;
        return {};
      }));
  pugi::xml_document document;
  pugi::xml_node suite = document.append_child("testsuite");
  suite.append_attribute("name") = name.c_str();
  suite.append_attribute("tests") = tests;
  suite.append_attribute("failures") = failures;
  // The text of an element without content, left open: its cases follow one by one.
  std::string out =
      std::exchange(has_suites_, true) ? "" : "<?xml version=\"1.0\"?>\n<testsuites>\n";
  out += element_text(suite, 1);
  out.erase(out.rfind(" />"));
  out += ">\n";
  TRY(for_each_case(image,
                    [&](std::string_view title, const Finding* finding,
                        std::string_view failure) -> Result<void> {
                      pugi::xml_document one;
                      pugi::xml_node test = one.append_child("testcase");
                      test.append_attribute("classname") = name.c_str();
                      test.append_attribute("name") = std::string(title).c_str();
                      const std::string problem = to_terminal(
                          finding != nullptr ? sentence_of(*finding) : std::string(failure));
                      if (!problem.empty())
                        test.append_child("failure").append_attribute("message") = problem.c_str();
                      out += element_text(test, 2);
                      return out.size() < flush_at ? Result<void>{}
                                                   : (*sink_)(std::exchange(out, {}));
                    }));
  return (*sink_)(out + "  </testsuite>\n");
}

}  // namespace coldchain::report
