// SPDX-License-Identifier: MIT
// Tests the header and its extensions against the specification, as far as decoding let them pass:
// feature bits, repeated extensions, where the backing file name lies.
// Gathers the claim of the header's cluster.
#include "survey.hpp"

#include <set>

#include <coldchain/qcow2/extensions.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <fmt/format.h>

namespace coldchain::check {

namespace {

using finding::Code;
using finding::Structure;
using qcow2::Header;

// LUKS headers have a few MiB.
constexpr std::uint64_t most_encryption_header = 64 << 20;

void add(Survey& survey, Code code, std::string detail, Structure structure = Structure::header) {
  survey.result.findings.add({.code = code, .detail = std::move(detail), .structure = structure});
}

// qcow2.rst, "Header": the name follows the header and its extensions.
bool name_overlaps(const Header& header) {
  if (header.backing_file_offset == 0 || header.backing_file_size == 0)
    return false;
  std::uint64_t end = header.header_length;
  for (const qcow2::Extension& extension : header.extensions)
    end += 8 + align_up(extension.data.size(), 8);
  return header.backing_file_offset < end;
}

void check_features(Survey& survey, const Header& header) {
  if (header.has_incompatible(qcow2::incompatible::dirty))
    add(survey, Code::image_dirty, "incompatible feature bit 0 is set");
  if (header.has_incompatible(qcow2::incompatible::corrupt))
    add(survey, Code::image_corrupt_bit, "incompatible feature bit 1 is set");
  if (const auto unknown = header.compatible_features & ~qcow2::compatible::lazy_refcounts)
    add(survey, Code::header_unknown_compatible, fmt::format("bits {:#x}", unknown));
  constexpr std::uint64_t known = qcow2::autoclear::bitmaps | qcow2::autoclear::raw_external_data;
  if (const auto unknown = header.autoclear_features & ~known)
    add(survey, Code::header_unknown_autoclear, fmt::format("bits {:#x}", unknown));
}

// The length that the specification gives an extension, or what it is a multiple of.
bool has_wrong_length(const qcow2::Extension& extension) {
  switch (extension.type) {
    case qcow2::extension::feature_name_table:
      return extension.data.size() % sizeof(qcow2::wire::FeatureName) != 0;
    case qcow2::extension::bitmaps:
      return extension.data.size() != sizeof(qcow2::wire::BitmapsExtension);
    case qcow2::extension::encryption_header:
      return extension.data.size() != sizeof(qcow2::wire::EncryptionHeaderPointer);
    default:
      return false;
  }
}

bool is_without_use(const qcow2::Extension& extension, const Header& header) {
  switch (extension.type) {
    case qcow2::extension::backing_file_format:
      return !header.backing_file();
    case qcow2::extension::encryption_header:
      return header.crypt_method != static_cast<std::uint32_t>(qcow2::CryptMethod::luks);
    case qcow2::extension::external_data_file_name:
      return !header.has_data_file();
    default:
      return false;
  }
}

void check_extensions(Survey& survey, const Header& header) {
  std::set<std::uint32_t> seen;
  for (const qcow2::Extension& extension : header.extensions) {
    const auto note = [&](Code code) {
      add(survey, code, fmt::format("type {:#x}, {} bytes", extension.type, extension.data.size()),
          Structure::header_extension);
    };
    if (!seen.insert(extension.type).second)
      note(Code::header_extension_repeated);
    if (has_wrong_length(extension))
      note(Code::header_extension_length);
    if (is_without_use(extension, header))
      note(Code::header_extension_without_use);
  }
}

}  // namespace

void check_header(Survey& survey) {
  const Header& header = survey.image.header();
  survey.claim(0, survey.geometry.cluster_size(), Structure::header, 0);
  check_features(survey, header);
  if (header.version >= 3 && header.header_length % 8 != 0)
    add(survey, Code::header_length_unaligned, fmt::format("{} bytes", header.header_length));
  check_extensions(survey, header);
  if (const Result<void> accepted = qcow2::check_extensions(header); !accepted)
    survey.fail_as_qemu(accepted.error().message);
  if (header.data_file_is_raw() && header.backing_file())
    add(survey, Code::data_file_with_backing, "data-file-raw is set");
  if (name_overlaps(header))
    add(survey, Code::header_backing_name_overlaps,
        fmt::format("the name lies at {:#x}", header.backing_file_offset));
  if (header.refcount_table_clusters == 0)
    add(survey, Code::header_no_refcount_table, "refcount_table_clusters is 0");
}

void check_encryption_header(Survey& survey) {
  const Header& header = survey.image.header();
  if (header.crypt_method != static_cast<std::uint32_t>(qcow2::CryptMethod::luks))
    return;
  const qcow2::Extension* extension = header.find_extension(qcow2::extension::encryption_header);
  const auto pointer = extension == nullptr
                           ? std::nullopt
                           : load<qcow2::wire::EncryptionHeaderPointer>(extension->data, 0);
  if (!pointer) {
    add(survey, Code::encryption_header_bad, "there is no encryption header extension");
    survey.fail_as_qemu("there is no encryption header extension");
    return;
  }
  const std::uint64_t offset = pointer->offset.get();
  const std::uint64_t length = pointer->length.get();
  if (!is_aligned(offset, survey.geometry.cluster_size()) || length == 0 ||
      length > most_encryption_header)
    add(survey, Code::encryption_header_bad, fmt::format("{} bytes at {:#x}", length, offset));
  else
    survey.claim(offset, length, Structure::encryption_header, 0);
  const Result<qcow2::LuksInfo> luks = qcow2::read_luks(survey.file, header);
  if (luks)
    return;
  add(survey, Code::encryption_header_bad,
      fmt::format("every byte of guest data is lost with it: {}", luks.error().message));
  // A destroyed header is damage to be told; with a bad pointer, QEMU does not look at the image.
  if (!qcow2::finds_luks_header(header))
    survey.fail_as_qemu(luks.error().message);
}

}  // namespace coldchain::check
