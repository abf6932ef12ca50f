// SPDX-License-Identifier: MIT
// Meta contexts in nbdinfo's text and JSON.
#pragma once

#include <string>

#include <coldchain/analysis/contexts.hpp>
#include <coldchain/report/sink.hpp>

namespace coldchain::report {

class ContextWriter {
 public:
  ContextWriter(analysis::Context context, bool json, const Sink& sink)
      : context_(context), json_(json), sink_(&sink) {}

  // Output is collected; errors of the sink surface at end().
  void write(const analysis::ContextExtent& extent);
  [[nodiscard]] Result<void> end();

 private:
  analysis::Context context_;
  bool json_;
  const Sink* sink_;
  std::string out_;
  bool first_ = true;
  Result<void> outcome_;
};

}  // namespace coldchain::report
