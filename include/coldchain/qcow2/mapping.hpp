// SPDX-License-Identifier: MIT
// From guest ranges to runs: what one image alone says about its guest's bytes, read from an L1
// table (the active one, or a snapshot's) and its L2 tables. qcow2.rst, "Cluster mapping".
// Each L2 entry is read at most once per window, and a Result is made per table, not per entry.
#pragma once

#include <memory>
#include <vector>

#include <coldchain/base/result.hpp>
#include <coldchain/io/file.hpp>
#include <coldchain/qcow2/tables.hpp>

namespace coldchain::qcow2 {

// Why guest bytes cannot be read. Such bytes are lost, or out of reach: they are never zeros.
enum class Unreadable : std::uint8_t {
  no,
  // The file ends inside the last sector of a compressed cluster, which the stream may not need:
  // only decompressing can tell.
  undecided,
  past_end,  // they lie past the end of the file
  table,     // the system cannot read the table that describes them, or it is not in the file
  entry,     // the L2 entry that describes them breaks the format
};
[[nodiscard]] constexpr bool is_lost(Unreadable state) {
  return state > Unreadable::undecided;
}

// Of a compressed cluster: `past_end` where the file ends at or before the beginning of the last
// sector of the stream. Inside that sector it may end: some writers do not pad it.
[[nodiscard]] Unreadable state_of(CompressedExtent stream, std::uint64_t file_size);

enum class RunKind : std::uint8_t {
  unallocated,    // the backing file answers
  reserved,       // the backing file answers, but a host cluster is there already (subclusters)
  zero,           // reads as zeros, nothing behind it
  zero_reserved,  // reads as zeros, with a host cluster behind it
  data,           // standard clusters
  compressed,     // compressed clusters; a run may span several
  unknown,        // the table or the entry that describes them cannot be read
};

// Guest bytes of one kind. Where has_host(kind) they lie contiguously in the file from `host` on.
struct Run {
  GuestRange guest;
  HostOffset host;
  RunKind kind{};
  // Of compressed and unknown runs. Whether data lies past the end of the file follows from `host`.
  Unreadable unreadable = Unreadable::no;
};

[[nodiscard]] constexpr bool has_host(RunKind kind) {
  return kind == RunKind::data || kind == RunKind::zero_reserved || kind == RunKind::reserved;
}
[[nodiscard]] constexpr bool is_allocated(RunKind kind) {
  return kind != RunKind::unallocated && kind != RunKind::reserved;
}

// What a reader of one guest byte needs to know.
struct Location {
  RunKind kind{};
  HostOffset host;                // of that byte, where has_host(kind)
  std::uint64_t length = 0;       // guest bytes of this kind from there on, within the cluster
  CompressedExtent compressed{};  // for compressed clusters
  GuestOffset cluster_begin;
  Unreadable unreadable = Unreadable::no;  // of all `length` bytes
};

// The rules that differ from image to image.
struct MappingRules {
  Geometry geometry;
  bool allows_zero_flag = true;  // version 3
  bool has_data_file = false;
  std::uint64_t data_end = ~0ULL;    // size of the file that has the standard clusters, in bytes
  std::uint64_t stream_end = ~0ULL;  // size of the image file, which has the compressed ones
};

// Takes the place of an L1 entry that the system could not read.
constexpr std::uint64_t unread_l1_entry = ~0ULL;

class RunBuilder;

// A mapping is immutable and shared by threads; buffers that are reused live in the caller's
// Cursor.
class Mapping {
 public:
  struct Cursor {
    std::vector<be64> table;
  };

  // `l1` has been read whole; `guest_size` bounds the answers. `file` outlives the mapping.
  Mapping(const io::File& file, MappingRules rules, std::vector<be64> l1, std::uint64_t guest_size)
      : file_(&file),
        rules_(rules),
        l1_(std::make_shared<const std::vector<be64>>(std::move(l1))),
        guest_size_(guest_size) {}

  [[nodiscard]] const Geometry& geometry() const { return rules_.geometry; }
  [[nodiscard]] std::uint64_t guest_size() const { return guest_size_; }
  [[nodiscard]] const std::vector<be64>& l1() const { return *l1_; }
  [[nodiscard]] std::uint64_t data_end() const { return rules_.data_end; }

  // Appends the runs of `window` to `runs`: in order, without gaps, neighbours merged where they
  // continue each other. They end where the guest's disk ends. A table that cannot be read becomes
  // a run of unknown kind.
  void runs(GuestRange window, Cursor& cursor, std::vector<Run>& runs) const;

  // Fails where the kind is unknown, with the reason.
  [[nodiscard]] Result<Location> locate(GuestOffset offset, Cursor& cursor) const;

  // The first offset at or after `from` that an L2 table describes; `limit` if none does below it.
  // Entries in a hole of the file describe nothing.
  [[nodiscard]] GuestOffset next_described(GuestOffset from, GuestOffset limit) const;

  // The end of the stretch from `from` on whose tables cannot be in the file: the L1 entries could
  // not be read, or name an offset that is not aligned or past the end. `from` if there is none.
  [[nodiscard]] GuestOffset end_without_tables(GuestOffset from) const;

 private:
  // The first offset at or after `from`, which the table of L1 entry `l1_index` describes, whose
  // L2 entry is not in a hole; the end of what the table describes if all are.
  [[nodiscard]] GuestOffset skip_hole(std::uint64_t l1_index, GuestOffset from) const;
  [[nodiscard]] Result<HostOffset> table_of(std::uint64_t l1_index) const;
  [[nodiscard]] Result<void> read_entries(std::uint64_t l1_index, std::uint64_t first,
                                          std::uint64_t count, Cursor& cursor) const;
  // The same, part by part, where the table cannot be read whole.
  void add_readable_parts(std::uint64_t l1_index, GuestRange guest, Cursor& cursor,
                          RunBuilder& builder) const;

  const io::File* file_;
  MappingRules rules_;
  std::shared_ptr<const std::vector<be64>> l1_;  // copies of a mapping share it
  std::uint64_t guest_size_;
};

}  // namespace coldchain::qcow2
