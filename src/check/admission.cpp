// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/try.hpp>
#include <coldchain/check/admission.hpp>
#include <coldchain/check/foreign_format.hpp>
#include <coldchain/graph/probe.hpp>

#include <fmt/format.h>

namespace coldchain::check {

namespace {

using finding::Code;

constexpr std::uint64_t absurd_size = 64ULL << 40;

// Anything but a plain name in the image's own folder, or below it.
bool escapes(const std::string& name) {
  const std::string walled = "/" + name + "/";
  return name.starts_with('/') || name.find(':') != std::string::npos ||
         walled.find("/../") != std::string::npos;
}

void check_header(const qcow2::Header& header, finding::Findings& findings) {
  const std::string backing = header.backing_file().value_or("");
  const std::string data_file = header.data_file_name().value_or("");
  if (!backing.empty())
    findings.push_back({Code::upload_has_backing, backing});
  if (header.has_data_file())
    findings.push_back({Code::upload_has_data_file, data_file});
  for (const std::string& name : {backing, data_file}) {
    if (escapes(name))
      findings.push_back({Code::upload_name_escapes, name});
  }
  if (header.size > absurd_size)
    findings.push_back({Code::upload_size_absurd, fmt::format("{} bytes", header.size)});
  if (header.crypt_method != 0)
    findings.push_back({Code::upload_is_encrypted, header.crypt_method == 1 ? "AES" : "LUKS"});
}

// Programs that look for a footer take the file by that, whatever its header says.
Result<void> check_end(const io::File& file, finding::Findings& findings) {
  Bytes end(std::min<std::uint64_t>(file.size(), looked_at_end));
  TRY(io::read_exactly(file, {file.size() - end.size()}, end, "end of the file"));
  if (const std::optional<std::string> format = foreign_format({}, end))
    findings.push_back({Code::upload_ambiguous, *format});
  return {};
}

Result<void> check_raw(const raw::Image& image, bool is_known_otherwise,
                       finding::Findings& findings) {
  const std::uint64_t size = image.exact_size();
  findings.push_back({Code::upload_is_raw, fmt::format("{} bytes", size)});
  if (size > absurd_size)
    findings.push_back({Code::upload_size_absurd, fmt::format("{} bytes", size)});
  if (is_known_otherwise)
    return {};
  Bytes start(std::min<std::uint64_t>(size, looked_at_start));
  Bytes end(std::min<std::uint64_t>(size, looked_at_end));
  TRY(image.read({0}, start));
  TRY(image.read({size - end.size()}, end));
  if (const std::optional<std::string> format = foreign_format(start, end))
    findings.push_back({Code::upload_ambiguous, *format});
  return {};
}

}  // namespace

Result<finding::Findings> check_admission(const graph::Node& top) {
  finding::Findings findings;
  if (!top.is_open()) {
    if (!top.format.empty() && !graph::is_read_format(top.format))
      findings.push_back({Code::upload_format_not_allowed, top.format});
    return findings;
  }
  const qcow2::Image* image = top.qcow2_image();
  // It was given or recorded otherwise, but not everybody will know.
  const bool is_probed_otherwise = top.probed_format != (image != nullptr ? "qcow2" : "raw");
  if (is_probed_otherwise)
    findings.push_back(
        {Code::upload_ambiguous, fmt::format("{} (QEMU's probe)", top.probed_format)});
  if (image == nullptr) {
    TRY(check_raw(*top.raw_image(), is_probed_otherwise, findings));
    return findings;
  }
  check_header(image->header(), findings);
  if (!is_probed_otherwise)
    TRY(check_end(*top.file, findings));
  return findings;
}

std::vector<Code> default_denials() {
  return {Code::upload_has_backing, Code::upload_has_data_file, Code::upload_name_escapes,
          Code::upload_size_absurd, Code::upload_is_encrypted,  Code::upload_format_not_allowed,
          Code::upload_ambiguous,   Code::image_dirty,          Code::bitmap_in_use};
}

}  // namespace coldchain::check
