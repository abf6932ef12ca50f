// SPDX-License-Identifier: MIT
#include <coldchain/base/text.hpp>
#include <coldchain/report/findings_report.hpp>

#include <fmt/format.h>

namespace coldchain::report {

namespace {

using finding::Finding;
using finding::Structure;

void write_place(JsonWriter& json, const Finding& finding) {
  if (finding.structure == Structure::none)
    return;
  json.member("structure", to_string(finding.structure))
      .member("index", finding.index)
      .member("count", finding.count);
  write_range(json, "host", finding.host);
  write_range(json, "guest", finding.guest);
  json.member("entry", finding.entry)
      .member("expected", finding.expected)
      .member("found", finding.found);
}

}  // namespace

std::string place_of(const Finding& finding) {
  if (finding.structure == Structure::none)
    return finding.detail;
  // The index of an entry of an L2 table is the guest cluster that it describes.
  const bool is_l2 =
      finding.structure == Structure::l2_table || finding.structure == Structure::snapshot_l2_table;
  std::string text = fmt::format("{}{} {}", to_string(finding.structure),
                                 is_l2 ? ", guest cluster" : "", finding.index);
  if (finding.count > 1)
    text += fmt::format(" and {} more", finding.count - 1);
  if (!finding.host.empty())
    text += fmt::format(", host {:#x}-{:#x}", finding.host.begin.value, finding.host.end.value);
  if (!finding.guest.empty())
    text += fmt::format(", guest {:#x}-{:#x}", finding.guest.begin.value, finding.guest.end.value);
  if (finding.entry != 0)
    text += fmt::format(", entry {:#x}", finding.entry);
  if (finding.expected != 0)
    text += fmt::format(", expected {}, found {}", finding.expected, finding.found);
  else if (finding.found != 0)
    text += fmt::format(", found {}", finding.found);
  return finding.detail.empty() ? text : text + ": " + finding.detail;
}

void write_finding(JsonWriter& json, const Finding& finding) {
  const finding::Row& row = finding::row(finding.code);
  json.begin_object()
      .member("code", static_cast<unsigned>(finding.code))
      .member("name", row.slug)
      .member("severity", to_string(row.severity))
      .member("detail", finding.detail)
      .member("advice", row.advice)
      .member("repair", repair_text(row));
  write_place(json, finding);
  json.end_object();
}

void write_findings(JsonWriter& json, const finding::Findings& findings) {
  json.key("findings").begin_array();
  for (const Finding& finding : findings)
    write_finding(json, finding);
  json.end_array();
}

std::string finding_line(const Style& style, const finding::Finding& finding) {
  const finding::Row& row = finding::row(finding.code);
  const Style::Ink ink =
      row.severity == finding::Severity::note ? Style::Ink::yellow : Style::Ink::red;
  std::string line = fmt::format("{} {}: {}", style.paint(ink, to_string(row.severity)), row.slug,
                                 to_terminal(place_of(finding)));
  if (row.advice != "Nothing to do.")
    line += fmt::format(". {}", row.advice);
  return line;
}

}  // namespace coldchain::report
