// SPDX-License-Identifier: MIT
// Findings in words and in JSON, alike in every report that has some.
#pragma once

#include <string>

#include <coldchain/finding/finding.hpp>
#include <coldchain/report/json_writer.hpp>
#include <coldchain/report/style.hpp>

namespace coldchain::report {

// Where a finding is and what was found: structure, index, ranges, numbers, details.
[[nodiscard]] std::string place_of(const finding::Finding& finding);

// "findings": [ { "code", "name", "severity", "detail", "advice", "repair" } … ]; with a place, its
// members.
void write_finding(JsonWriter& json, const finding::Finding& finding);
void write_findings(JsonWriter& json, const finding::Findings& findings);

// NAME: { "offset", "length" }, in bytes, of a host or guest range; nothing where it is empty.
template <class Range>
void write_range(JsonWriter& json, std::string_view name, const Range& range) {
  if (!range.empty())
    json.key(name)
        .begin_object()
        .member("offset", range.begin.value)
        .member("length", range.size())
        .end_object();
}

// One line: "fatal link-missing: No such file or directory. Put the file back, …"; a note needs no
// advice.
[[nodiscard]] std::string finding_line(const Style& style, const finding::Finding& finding);

}  // namespace coldchain::report
