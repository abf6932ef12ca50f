// SPDX-License-Identifier: MIT
// Tests the bitmap directory, each bitmap's table and its entries, flags, types, names, and whether
// the table fits the disk. QEMU block/qcow2-bitmap.c: qcow2_check_bitmaps_refcounts,
// bitmap_list_load. Gathers the claims of the directory, the tables and the bitmaps' data.
#include "survey.hpp"

#include <set>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/wire.hpp>

#include <fmt/format.h>

namespace coldchain::check {

namespace {

using finding::Code;
using finding::Structure;
using qcow2::Bitmap;

// qcow2.rst, "Bitmap table": bits 1-8 and 56-63 are reserved; bit 0 is, too, where there is an
// offset.
constexpr std::uint64_t reserved_mask = 0xff00'0000'0000'01fe;
constexpr std::uint64_t all_ones_flag = 1;
constexpr std::uint32_t known_flags = qcow2::bitmap_flags::in_use | qcow2::bitmap_flags::automatic |
                                      qcow2::bitmap_flags::extra_data_compatible;

class BitmapPass {
 public:
  explicit BitmapPass(Survey& survey) : survey_(survey) {}

  void run() {
    const qcow2::Header& header = survey_.image.header();
    const qcow2::Extension* extension = header.find_extension(qcow2::extension::bitmaps);
    const bool is_current = (header.autoclear_features & qcow2::autoclear::bitmaps) != 0;
    if (extension == nullptr && is_current)
      return add(Code::bitmap_directory_bad, Structure::header_extension, 0,
                 "the autoclear bit is set, but there is no bitmaps extension");
    if (extension == nullptr)
      return;
    const auto fields = load<qcow2::wire::BitmapsExtension>(extension->data, 0);
    if (!fields || extension->data.size() != sizeof(qcow2::wire::BitmapsExtension))
      return add_bad_directory(fmt::format("the extension has {} bytes", extension->data.size()));
    if (!is_current)
      return add(Code::bitmaps_stale, Structure::header_extension, 0, "");
    if (fields->reserved.get() != 0)
      return add_bad_directory("the reserved field of the extension is not 0");
    if (fields->bitmap_directory_size.get() <= qcow2::limits::max_bitmap_directory_bytes)
      survey_.claim(fields->bitmap_directory_offset.get(), fields->bitmap_directory_size.get(),
                    Structure::bitmap_directory, 0);
    const Result<std::vector<Bitmap>> bitmaps = qcow2::read_bitmaps(survey_.file, header);
    if (!bitmaps)
      return add_bad_directory(bitmaps.error().message);
    const std::uint64_t used = qcow2::encode_bitmap_directory(*bitmaps).size();
    if (used != fields->bitmap_directory_size.get())
      return add_bad_directory(fmt::format("{} entries take {} of its {} bytes", bitmaps->size(),
                                           used, fields->bitmap_directory_size.get()));
    if (const auto accepted = qcow2::check_bitmaps(survey_.file, header, *bitmaps); !accepted)
      survey_.fail_as_qemu(accepted.error().message);
    std::set<std::string_view> names;
    for (std::size_t i = 0; i < bitmaps->size(); ++i) {
      const Bitmap& bitmap = (*bitmaps)[i];
      if (!names.insert(bitmap.name).second)
        add_bad(Code::bitmap_name_repeated, Structure::bitmap_directory, i, bitmap.name);
      look_at(bitmap, i);
    }
  }

 private:
  void add(Code code, Structure structure, std::uint64_t index, std::string detail) {
    survey_.result.findings.add(
        {.code = code, .detail = std::move(detail), .structure = structure, .index = index});
  }

  void add_bad_directory(std::string detail) {
    ++survey_.result.counts.corruptions;
    survey_.fail_as_qemu("Invalid argument");
    add(Code::bitmap_directory_bad, Structure::bitmap_directory, 0, std::move(detail));
  }

  void look_at(const Bitmap& bitmap, std::uint64_t index) {
    if ((bitmap.flags & qcow2::bitmap_flags::in_use) != 0)
      add(Code::bitmap_in_use, Structure::bitmap_directory, index, bitmap.name);
    if ((bitmap.flags & ~known_flags) != 0)
      add_bad(Code::bitmap_unknown_flags, Structure::bitmap_directory, index,
              fmt::format("{}: flags {:#x}", bitmap.name, bitmap.flags));
    if (bitmap.type != qcow2::dirty_tracking_type)
      add_bad(Code::bitmap_unknown_type, Structure::bitmap_directory, index,
              fmt::format("{}: type {}", bitmap.name, bitmap.type));
    const std::uint64_t needed = bitmap.needed_entries(survey_.image.header());
    if (bitmap.bitmap_table_size != needed)
      add(Code::bitmap_coverage_wrong, Structure::bitmap_directory, index,
          fmt::format("{}: {} table entries, not {}", bitmap.name, bitmap.bitmap_table_size,
                      needed));
    if (bitmap.bitmap_table_offset == 0 || bitmap.bitmap_table_size == 0 ||
        !is_aligned(bitmap.bitmap_table_offset, survey_.geometry.cluster_size()))
      return add_bad(Code::bitmap_table_bad, Structure::bitmap_directory, index,
                     fmt::format("{}: table of {} entries at {:#x}", bitmap.name,
                                 bitmap.bitmap_table_size, bitmap.bitmap_table_offset));
    const std::uint64_t bytes = std::uint64_t{bitmap.bitmap_table_size} * sizeof(be64);
    const bool is_there =
        survey_.claim(bitmap.bitmap_table_offset, bytes, Structure::bitmap_table, index);
    if (!is_there)
      return;
    if (const Result<void> done = walk_table(bitmap, bytes, index); !done)
      add_bad(Code::bitmap_table_bad, Structure::bitmap_table, index,
              fmt::format("{}: {}", bitmap.name, done.error().message));
  }

  // What makes qemu-img's check stop.
  void add_bad(Code code, Structure structure, std::uint64_t index, std::string detail) {
    survey_.fail_as_qemu("Invalid argument");
    add(code, structure, index, std::move(detail));
  }

  Result<void> walk_table(const Bitmap& bitmap, std::uint64_t bytes, std::uint64_t index) {
    return survey_.for_each_entry(
        {bitmap.bitmap_table_offset}, bytes, tables_, "bitmap tables",
        [&](const io::Unread& unread) {
          survey_.note_unread(unread, Structure::bitmap_table, index);
        },
        [&](std::uint64_t raw, std::uint64_t entry) {
          look_at_entry(raw, {bitmap.bitmap_table_offset + entry * sizeof(be64)}, index);
        });
  }

  void look_at_entry(std::uint64_t raw, HostOffset at, std::uint64_t index) {
    const std::uint64_t offset = raw & qcow2::offset_mask;
    const bool is_bad = (raw & reserved_mask) != 0 || (offset != 0 && (raw & all_ones_flag) != 0) ||
                        !is_aligned(offset, survey_.geometry.cluster_size());
    if (is_bad) {
      survey_.fail_as_qemu(fmt::format("bitmap table entry {:#x} at {:#x}", raw, at.value));
      survey_.corruption({.code = Code::bitmap_table_entry_reserved,
                          .structure = Structure::bitmap_table,
                          .index = index,
                          .host = {at, at + sizeof(be64)},
                          .entry = raw});
      return;
    }
    if (offset != 0)
      survey_.claim(offset, survey_.geometry.cluster_size(), Structure::bitmap_data, index, 1,
                    {at, at + sizeof(be64)});
  }

  Survey& survey_;
  WalkedRanges tables_;
};

}  // namespace

void check_bitmaps(Survey& survey) {
  BitmapPass(survey).run();
}

}  // namespace coldchain::check
