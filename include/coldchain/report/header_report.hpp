// SPDX-License-Identifier: MIT
// `info --header`: a line or an object for each field of a header, with the verdict on it.
#pragma once

#include <string>
#include <vector>

#include <coldchain/qcow2/header_fields.hpp>
#include <coldchain/report/sink.hpp>
#include <coldchain/report/style.hpp>

namespace coldchain::report {

[[nodiscard]] Result<void> write_header_text(const std::vector<qcow2::HeaderField>& fields,
                                             const Style& style, const Sink& sink);

// Schema coldchain.header (docs/json.md).
[[nodiscard]] Result<void> write_header_json(const std::string& filename,
                                             const std::vector<qcow2::HeaderField>& fields,
                                             const Sink& sink);

}  // namespace coldchain::report
