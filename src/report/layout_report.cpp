// SPDX-License-Identifier: MIT
#include <coldchain/base/text.hpp>
#include <coldchain/report/layout_report.hpp>

#include <fmt/format.h>

namespace coldchain::report {

namespace {}

Result<void> LayoutWriter::begin(const std::string& filename, std::uint64_t file_size) {
  file_size_ = file_size;
  if (json_)
    out_ = fmt::format(
        "{{ \"schema\": \"coldchain.layout\", \"version\": 1, \"filename\": {},{} \"size\": {}, "
        "\"ranges\": [",
        to_json_string(filename),
        is_valid_utf8(filename) ? "" : fmt::format(" \"filename-hex\": \"{}\",", to_hex(filename)),
        file_size);
  else
    out_ = fmt::format("{:<16}{:<16}{}\n", "Offset", "Length", "Owner");
  return {};
}

void LayoutWriter::add(const check::LayoutRange& range) {
  if (json_)
    out_ +=
        fmt::format("{}\n{{ \"offset\": {}, \"length\": {}, \"owner\": \"{}\"}}", first_ ? "" : ",",
                    range.host.begin.value, range.host.size(), check::to_string(range));
  else
    out_ += fmt::format("{:<#16x}{:<#16x}{}\n", range.host.begin.value, range.host.size(),
                        check::to_string(range));
  first_ = false;
  if (out_.size() >= flush_at)
    flush();
}

Result<void> LayoutWriter::end(const std::vector<check::LayoutTotal>& totals, const Style& style) {
  if (json_) {
    out_ += "],\n\"totals\": {";
    for (std::size_t i = 0; i < totals.size(); ++i)
      out_ += fmt::format("{}\n    \"{}\": {}", i == 0 ? "" : ",", check::to_string(totals[i]),
                          totals[i].bytes);
    out_ += "}}\n";
  } else {
    using enum Table::Align;
    Table table({"OWNER", "SIZE", "BYTES"}, {left, right, right});
    for (const check::LayoutTotal& total : totals)
      table.add({std::string(check::to_string(total)), human_size(total.bytes),
                 std::to_string(total.bytes)});
    table.add({"all", human_size(file_size_), std::to_string(file_size_)});
    out_ += '\n';
    out_ += table.text(style);
  }
  flush();
  return failed_;
}

void LayoutWriter::flush() {
  if (failed_)
    failed_ = (*sink_)(out_);
  out_.clear();
}

}  // namespace coldchain::report
