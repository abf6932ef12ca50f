// SPDX-License-Identifier: MIT
// An opened qcow2 image: its header, its mappings (active and of each internal snapshot) and its
// guest data as far as this image alone provides it. Backing files are not its business.
#pragma once

#include <optional>

#include <coldchain/qcow2/bitmaps.hpp>
#include <coldchain/qcow2/header.hpp>
#include <coldchain/qcow2/luks.hpp>
#include <coldchain/qcow2/mapping.hpp>
#include <coldchain/qcow2/refcounts.hpp>
#include <coldchain/qcow2/snapshots.hpp>

namespace coldchain::qcow2 {

class Image {
 public:
  // Reads the header and checks it against the limits of geometry.hpp. `file` outlives the image.
  [[nodiscard]] static Result<Image> open(const io::File& file);

  // The same for a check, which accepts more damage: no refcount table, a bad snapshot table,
  // header extensions for which QEMU refuses the image.
  [[nodiscard]] static Result<Image> open_damaged(const io::File& file);

  [[nodiscard]] const Header& header() const { return header_; }
  [[nodiscard]] const io::File& file() const { return *file_; }

  // The virtual size in whole sectors, which is what QEMU's guest sees.
  [[nodiscard]] std::uint64_t guest_size() const { return header_.size / 512 * 512; }

  // Where guest clusters lie: the image file itself, or the external data file once it is attached.
  [[nodiscard]] const io::File* data_file() const { return data_file_; }
  void attach_data_file(const io::File& file) { data_file_ = &file; }

  // Reads the whole L1 table. Fails for images with unknown incompatible features, whose tables may
  // mean something else.
  [[nodiscard]] Result<Mapping> active_mapping() const;
  [[nodiscard]] Result<Mapping> snapshot_mapping(const Snapshot& snapshot) const;

  // Whether data extents must be looked up in the host file's holes: QEMU does so only for an image
  // that it takes for one with preallocated metadata. QEMU block/qcow2-refcount.c:
  // qcow2_detect_metadata_preallocation.
  [[nodiscard]] bool has_preallocated_metadata() const;

  // Fails if guest data cannot be read at all: encryption, or a data file that is not there.
  [[nodiscard]] Result<void> check_readable() const;

  // The content of a compressed cluster, which `cluster` has room for. `stream` is scratch space.
  [[nodiscard]] Result<void> decompress(const CompressedExtent& extent, Bytes& stream,
                                        ByteSpan cluster) const;

  // The other way: how many bytes of `stream` it takes; 0 where that has no room.
  [[nodiscard]] Result<std::size_t> compress(ByteView cluster, ByteSpan stream) const;

  // The compressed cluster that was unpacked last: several reads of it unpack it once.
  struct Unpacked {
    const Image* image = nullptr;  // that has the cluster; null: none yet
    CompressedExtent extent{};
    Bytes cluster{};
    Bytes stream{};  // scratch space
  };

  // Reads guest bytes that `location` (from a mapping of this image) says are data or compressed.
  // `offset` is where the bytes begin; buffer.size() <= location.length.
  [[nodiscard]] Result<void> read(const Location& location, GuestOffset offset, ByteSpan buffer,
                                  Unpacked& unpacked) const;

 private:
  static Result<Image> open(const io::File& file, bool is_damaged);

  Image(const io::File& file, Header header) : file_(&file), header_(std::move(header)) {}

  [[nodiscard]] bool is_zstd() const;

  [[nodiscard]] Result<Mapping> mapping(std::uint64_t l1_table_offset, std::uint32_t l1_size,
                                        std::uint64_t guest_size, const char* what) const;

  const io::File* file_;
  const io::File* data_file_ = nullptr;
  Header header_;
};

}  // namespace coldchain::qcow2
