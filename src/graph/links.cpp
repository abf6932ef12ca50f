// SPDX-License-Identifier: MIT
#include "links.hpp"

#include <fmt/format.h>

namespace coldchain::graph {

using finding::Code;

Code link_code(const Error& error) {
  switch (error.code) {
    case ErrorCode::not_found:
      return Code::link_missing;
    case ErrorCode::permission_denied:
      return Code::link_not_permitted;
    case ErrorCode::refused:
      return Code::link_outside_root;
    case ErrorCode::invalid_argument:
      return Code::link_not_a_file;
    case ErrorCode::locked:
      return Code::link_locked;
    default:
      return Code::link_unreadable;
  }
}

Result<NameSpec> recorded_backing(const qcow2::Header& header) {
  Result<NameSpec> spec = parse_name(*header.backing_file());
  if (const auto recorded = header.backing_format(); spec && recorded && !recorded->empty())
    spec->format = recorded;
  return spec;
}

bool is_ambiguous(const NameSpec& spec) {
  return spec.from_options && !spec.typed && !spec.path.starts_with('/');
}

std::string probed_name(const NameSpec& spec, const std::string& path) {
  if (!spec.is_filename)
    return "";
  return spec.from_options ? "file:" + path : path;
}

finding::Findings compare_ends(const LinkEnd& overlay, const LinkEnd& backing) {
  finding::Findings findings;
  const std::string sizes = fmt::format("{} over {} bytes", overlay.guest_size, backing.guest_size);
  if (overlay.guest_size > backing.guest_size)
    findings.push_back({Code::overlay_longer, sizes});
  if (overlay.guest_size < backing.guest_size)
    findings.push_back({Code::overlay_shorter, sizes});
  if (backing.modified > overlay.modified)
    findings.push_back({Code::backing_changed, "modified after its overlay"});
  return findings;
}

}  // namespace coldchain::graph
