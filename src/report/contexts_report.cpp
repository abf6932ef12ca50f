// SPDX-License-Identifier: MIT
#include <iterator>

#include <coldchain/base/try.hpp>
#include <coldchain/report/contexts_report.hpp>
#include <coldchain/report/unreadable_report.hpp>

#include <fmt/compile.h>
#include <fmt/format.h>

namespace coldchain::report {

void ContextWriter::write(const analysis::ContextExtent& extent) {
  const std::string description = analysis::context_description(context_, extent.value);
  auto out = std::back_inserter(out_);
  if (json_) {
    out_ += first_ ? "[\n" : ",\n";
    fmt::format_to(out,
                   FMT_COMPILE("{{ \"offset\": {}, \"length\": {}, \"type\": {}, "
                               "\"description\": \"{}\"{}{}}}"),
                   extent.guest.begin.value, extent.guest.size(), extent.value, description,
                   extent.unreadable.empty() ? "" : ", ",
                   extent.unreadable.empty() ? "" : unreadable_member(extent.unreadable));
  } else {
    fmt::format_to(out, FMT_COMPILE("{:>10}  {:>10}  {:>3}  {}\n"), extent.guest.begin.value,
                   extent.guest.size(), extent.value, description);
  }
  first_ = false;
  if (out_.size() >= (1U << 18)) {
    if (outcome_)
      outcome_ = (*sink_)(out_);
    out_.clear();
  }
}

Result<void> ContextWriter::end() {
  TRY(outcome_);
  if (json_)
    out_ += first_ ? "[\n\n]\n" : "\n]\n";
  return (*sink_)(out_);
}

}  // namespace coldchain::report
