// SPDX-License-Identifier: MIT
// The new name is written behind what the header says now, where nobody looks; then the fields that
// lead to it change, all of them in one sector. Where the format's extension cannot go or come
// without moving those behind it, it stays, or keeps its place with another content; or, where
// there was no name, is the last extension, and written before the name. Where the first sector has
// no room for the format, the names of features that the image does not use give way.
#include "header_change.hpp"
#include "image_editor.hpp"

#include <algorithm>

#include <coldchain/analysis/refusal.hpp>
#include <coldchain/base/checked.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/ops/backing_link.hpp>
#include <coldchain/qcow2/geometry.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

using edit::Phase;
using qcow2::Extension;
using qcow2::Header;

Extension format_extension(const std::string& format) {
  const ByteView data = text_bytes(format);
  return {qcow2::extension::backing_file_format, Bytes(data.begin(), data.end()),
          Bytes(align_up(data.size(), 8) - data.size())};
}

bool is_format(const Extension& extension) {
  return extension.type == qcow2::extension::backing_file_format;
}

// As if the image had been made with that link: QEMU puts the format first, the name last.
Header made_anew(Header header, const std::optional<BackingLink>& link) {
  std::erase_if(header.extensions, is_format);
  header.has_end_mark = true;
  clear_name(header);
  if (link && !link->format.empty())
    header.extensions.insert(header.extensions.begin(), format_extension(link->format));
  if (link)
    set_name(header, link->name, end_of_extensions(header));
  return header;
}

// With all extensions where they are.
std::optional<Header> made_over(Header header, const std::optional<BackingLink>& link,
                                std::uint64_t end) {
  const auto format = std::find_if(header.extensions.rbegin(), header.extensions.rend(), is_format);
  if (!header.has_end_mark)
    return std::nullopt;
  clear_name(header);
  if (!link)
    return header;
  if (link->format.empty() != (format == header.extensions.rend()))
    return std::nullopt;
  if (format != header.extensions.rend()) {
    const Extension fresh = format_extension(link->format);
    if (fresh.data.size() + fresh.padding.size() != format->data.size() + format->padding.size())
      return std::nullopt;
    *format = fresh;
  }
  set_name(header, link->name, align_up(end, 8));
  return header;
}

// qcow2.rst, "Feature name table": entries of 48 bytes, with the type and the number of the bit.
// The names only inform; those of bits that are not set give way.
void keep_used_names(const Header& header, Extension& table) {
  constexpr std::size_t entry_size = 48;
  const std::uint64_t features[] = {header.incompatible_features, header.compatible_features,
                                    header.autoclear_features};
  Bytes kept;
  for (std::size_t at = 0; at + entry_size <= table.data.size(); at += entry_size) {
    const auto type = std::to_integer<std::size_t>(table.data[at]);
    const auto bit = std::to_integer<unsigned>(table.data[at + 1]);
    if (type >= std::size(features) || (bit < 64 && (features[type] >> bit & 1) != 0))
      kept.insert(kept.end(), table.data.begin() + static_cast<std::ptrdiff_t>(at),
                  table.data.begin() + static_cast<std::ptrdiff_t>(at + entry_size));
  }
  table.data = kept;
  table.padding.clear();
}

// With fewer feature names, so that the format has room in the first sector. A name that stays the
// same keeps its place.
std::optional<Header> made_with_fewer_names(Header header, const BackingLink& link,
                                            std::uint64_t end) {
  const bool keeps_name = header.backing_file() == link.name;
  const std::uint64_t offset = header.backing_file_offset;
  header = made_anew(std::move(header), link);
  clear_name(header);
  for (Extension& extension : header.extensions) {
    if (extension.type == qcow2::extension::feature_name_table)
      keep_used_names(header, extension);
  }
  std::erase_if(header.extensions, [](const Extension& extension) {
    return extension.type == qcow2::extension::feature_name_table && extension.data.empty();
  });
  if (keeps_name && end_of_extensions(header) <= offset)
    set_name(header, link.name, offset);
  else
    set_name(header, link.name, align_up(std::max(end, end_of_extensions(header)), 8));
  return header;
}

// Nobody looks at a format without a name: it is written a phase before that, as the last
// extension.
Result<bool> stage_format_and_name(edit::Transaction& transaction, Header header,
                                   const BackingLink& link, std::uint64_t end) {
  if (header.backing_file() || !header.has_end_mark)
    return false;
  std::erase_if(header.extensions, is_format);
  if (!link.format.empty())
    header.extensions.push_back(format_extension(link.format));
  if (!TRY(stage_header(transaction, Phase::settle, header, end)))
    return false;
  end = std::max<std::uint64_t>(end, qcow2::encode_header(header).size());
  set_name(header, link.name, end);
  return stage_header(transaction, Phase::conclude, header, end);
}

bool is_recorded(const Header& header, const std::optional<BackingLink>& link) {
  if (!link)
    return !header.backing_file();
  return header.backing_file() == link->name &&
         header.backing_format().value_or("") == link->format;
}

}  // namespace

Result<void> stage_backing_link(edit::Transaction& transaction, const Header& header,
                                const std::optional<BackingLink>& link) {
  if (link && link->name.size() > qcow2::limits::max_backing_file_size)
    return fail(ErrorCode::refused, "the name of the backing file is longer than 1023 bytes");
  if (is_recorded(header, link))
    return {};
  const std::uint64_t end = qcow2::encode_header(header).size();
  if (TRY(stage_header(transaction, Phase::conclude, made_anew(header, link), end)))
    return {};
  const std::optional<Header> made = made_over(header, link, end);
  if (made && TRY(stage_header(transaction, Phase::conclude, *made, end)))
    return {};
  const std::optional<Header> smaller =
      link ? made_with_fewer_names(header, *link, end) : std::nullopt;
  if (smaller && TRY(stage_header(transaction, Phase::conclude, *smaller, end)))
    return {};
  if (!link || !TRY(stage_format_and_name(transaction, header, *link, end)))
    return fail(ErrorCode::refused,
                "the header has no room for the new backing file name in addition to the old one, "
                "or one write cannot record the format: use a shorter name, or 'qemu-img rebase "
                "-u', which writes several times");
  return {};
}

Result<void> plan_relink(edit::Transaction& transaction, const std::optional<BackingLink>& link) {
  const qcow2::Image image = TRY(qcow2::Image::open(transaction.view()));
  const Header& header = image.header();
  if (const finding::Findings refusals = analysis::refusals_of(image); !refusals.empty())
    return fail(ErrorCode::refused,
                fmt::format("{}: QEMU refuses the image; 'coldchain check' lists the errors",
                            refusals.front().detail));
  if (header.has_incompatible(qcow2::incompatible::corrupt))
    return fail(ErrorCode::refused, "is marked as damaged: 'coldchain check -r all' repairs it");
  if (link && header.has_data_file() && header.data_file_is_raw())
    return fail(ErrorCode::refused,
                "has a raw external data file, which can have no backing file below it");
  TRY(clear_unknown_autoclear(transaction, header));
  const Header changed = TRY(qcow2::Image::open(transaction.view())).header();
  return stage_backing_link(transaction, changed, link);
}

}  // namespace coldchain::ops
