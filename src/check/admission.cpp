// SPDX-License-Identifier: MIT
#include <coldchain/check/admission.hpp>

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

}  // namespace

finding::Findings check_admission(const qcow2::Header& header) {
  finding::Findings findings;
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
  return findings;
}

std::vector<Code> default_denials() {
  return {Code::upload_has_backing, Code::upload_has_data_file, Code::upload_name_escapes,
          Code::upload_size_absurd, Code::upload_is_encrypted,  Code::image_dirty,
          Code::bitmap_in_use};
}

}  // namespace coldchain::check
