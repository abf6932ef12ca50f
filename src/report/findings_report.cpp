// SPDX-License-Identifier: MIT
#include <coldchain/base/text.hpp>
#include <coldchain/report/findings_report.hpp>

#include <fmt/format.h>

namespace coldchain::report {

void write_findings(JsonWriter& json, const finding::Findings& findings) {
  json.key("findings").begin_array();
  for (const finding::Finding& finding : findings) {
    const finding::Row& row = finding::row(finding.code);
    json.begin_object()
        .member("code", static_cast<unsigned>(finding.code))
        .member("name", row.slug)
        .member("severity", to_string(row.severity))
        .member("detail", finding.detail)
        .member("advice", row.advice)
        .end_object();
  }
  json.end_array();
}

std::string finding_line(const Style& style, const finding::Finding& finding) {
  const finding::Row& row = finding::row(finding.code);
  const Style::Ink ink =
      row.severity == finding::Severity::note ? Style::Ink::yellow : Style::Ink::red;
  std::string line = fmt::format("{} {}: {}", style.paint(ink, to_string(row.severity)), row.slug,
                                 to_terminal(finding.detail));
  if (row.severity > finding::Severity::note)
    line += fmt::format(". {}", row.advice);
  return line;
}

}  // namespace coldchain::report
