// SPDX-License-Identifier: MIT
#include <coldchain/report/json_writer.hpp>
#include <coldchain/report/measure_report.hpp>
#include <coldchain/report/unreadable_report.hpp>

#include <fmt/format.h>

namespace coldchain::report {

std::string measure_text(const analysis::Measure& measure) {
  std::string out = fmt::format("required size: {}\nfully allocated size: {}\n", measure.required,
                                measure.fully_allocated);
  if (measure.bitmaps)
    out += fmt::format("bitmaps size: {}\n", *measure.bitmaps);
  return out;
}

std::string measure_json(const analysis::Measure& measure) {
  JsonWriter json;
  json.begin_object();
  if (measure.bitmaps)
    json.member("bitmaps", *measure.bitmaps);
  json.member("required", measure.required)
      .member("fully-allocated", measure.fully_allocated)
      .end_object();
  std::string out = json.take();
  if (!measure.unreadable.empty())
    out.insert(out.rfind('}'), ", " + unreadable_member(measure.unreadable));
  return out + "\n";
}

}  // namespace coldchain::report
