// SPDX-License-Identifier: MIT
// `layout`: every range of an image file with its owner, and the totals.
#pragma once

#include <vector>

#include <coldchain/check/layout.hpp>
#include <coldchain/report/sink.hpp>
#include <coldchain/report/style.hpp>

namespace coldchain::report {

// Ranges are written as they come.
class LayoutWriter {
 public:
  LayoutWriter(bool json, const Sink& sink) : json_(json), sink_(&sink) {}

  [[nodiscard]] Result<void> begin(const std::string& filename, std::uint64_t file_size);
  void add(const check::LayoutRange& range);
  [[nodiscard]] Result<void> end(const std::vector<check::LayoutTotal>& totals, const Style& style);

 private:
  void flush();

  bool json_;
  const Sink* sink_;
  std::string out_;
  std::uint64_t file_size_ = 0;
  bool first_ = true;
  Result<void> failed_;  // the first error of the sink
};

}  // namespace coldchain::report
