// SPDX-License-Identifier: MIT
// Changes to one image, kept in memory until all of them are known. Reads through view() see them,
// so that the result can be checked before a byte of the image changes. They are written in the
// order of their phases, with a flush between any two. At each moment, a reader that does not know
// about this finds the image no worse than before: at worst there are leaks.
// docs/formats/journal.md.
#pragma once

#include <algorithm>
#include <array>
#include <bitset>
#include <functional>
#include <map>

#include <coldchain/base/result.hpp>
#include <coldchain/io/overlay_file.hpp>

namespace coldchain::edit {

// The least that a storage writes at once, bytes.
inline constexpr std::uint64_t sector_size = io::OverlayFile::sector_size;

enum class Phase : std::uint8_t {
  announce,  // header marks that the next phases make wrong
  fresh,     // appended clusters: nothing refers to them yet
  secure,    // refcounts up, references away, copied flags away
  extend,    // references to fresh refcount blocks and tables, whose clusters have a refcount now
  link,      // references to fresh clusters, and to clusters that have a refcount now
  release,   // refcounts down, of clusters that nothing refers to any more
  settle,    // copied flags, after the refcounts; data that `conclude` makes valid
  conclude,  // header marks that the earlier phases make right
};
constexpr std::size_t phase_count = 8;

// Whole sectors that change together, with the content before and after. If a sector changes in
// several phases, `before` is the content after the previous phase.
struct Change {
  Phase phase{};
  HostOffset offset;
  Bytes before;
  Bytes after;
};

// The most storage that a file can have; for a block device its size, because its storage cannot be
// seen.
[[nodiscard]] std::uint64_t storage_to_expect(const io::File& file);

// What a transaction keeps of fresh clusters.
enum class Fresh {
  kept,     // their bytes: the change can be carried out
  counted,  // where they lie: the change is known by its figures alone
};

// How many changes there are, and how many bytes they come to.
struct ChangeCount {
  std::uint64_t changes = 0;
  std::uint64_t bytes = 0;
};

class Transaction {
 public:
  // The most bytes of one Change.
  static constexpr std::uint64_t most_change_bytes = 1 << 20;
  // The most bytes that a change of an image without storage may stage. A byte takes about 2.4
  // bytes of memory.
  static constexpr std::uint64_t least_limit = 24ULL << 20;

  // `image` outlives the transaction, which only reads it.
  explicit Transaction(const io::File& image, Fresh fresh = Fresh::kept);

  [[nodiscard]] const io::File& view() const { return view_; }
  [[nodiscard]] bool is_empty() const;
  [[nodiscard]] std::uint64_t size_before() const { return image_->size(); }
  [[nodiscard]] std::uint64_t size_after() const { return view_.size(); }
  // The bytes of all sectors that change, each counted once.
  [[nodiscard]] std::uint64_t changed_bytes() const;
  // How many bytes may be staged; a sector counts once for each phase that changes it. A normal
  // change needs no more tables than its files have storage, but a small file can name one table
  // many times. A change beyond the limit fails with `too_large`. Fresh clusters that are only
  // counted do not count here.
  [[nodiscard]] std::uint64_t limit() const { return limit_; }
  // The change also reads `file`.
  void raise_limit(const io::File& file);
  [[nodiscard]] bool counts_fresh() const { return fresh_ == Fresh::counted; }

  // The bytes at `offset`, which lie below size_after(), as they will be from `phase` on.
  [[nodiscard]] Result<void> stage(Phase phase, HostOffset offset, ByteView bytes);
  [[nodiscard]] Result<void> stage_entry(Phase phase, HostOffset offset, std::uint64_t entry);
  // Stages whole sectors of unreferenced clusters, in the phase `fresh`. Sectors with the same
  // content are part of the change, too: other programs may write there before it is carried out.
  [[nodiscard]] Result<void> stage_fresh(HostOffset offset, ByteView bytes);

  // Forgets all that was staged.
  void discard() {
    phases_ = {};
    staged_ = 0;
    counted_.clear();
    counted_bytes_ = 0;
    view_.reset();
  }

  // Tells readers of view() which storage comes with the change, also for data.
  void allocate(std::uint64_t bytes) { view_.allocate(bytes); }

  // Makes the file longer, up to `size`.
  void grow(std::uint64_t size) { view_.resize(std::max(size, size_after())); }

  // In the order of the writes. Not available if fresh clusters are only counted.
  [[nodiscard]] Result<void> for_each_change(
      const std::function<Result<void>(const Change&)>& visit) const;
  [[nodiscard]] Result<ChangeCount> count_changes() const;

 private:
  using Sector = io::OverlayFile::Sector;
  using Places = std::bitset<io::OverlayFile::sector_size>;  // of the bytes of a sector
  struct Patch {
    Sector bytes;
    Places is_set;

    void apply_to(Sector& sector) const;
  };
  using Patches = std::map<std::uint64_t, Patch>;  // by sector

  [[nodiscard]] Result<void> check_bounds(HostOffset offset, std::uint64_t size) const;
  // The patch of a sector in a phase, which is a new one where there was none.
  [[nodiscard]] Result<Patch*> patch_at(Phase phase, std::uint64_t index);
  [[nodiscard]] Result<void> for_each_patch(
      const std::function<Result<void>(const Change&)>& visit) const;
  void count_fresh(std::uint64_t first, std::uint64_t count);
  [[nodiscard]] bool is_counted(std::uint64_t sector) const;
  // The sector as it is when the phases before `end` are done.
  [[nodiscard]] Result<Sector> sector_at(std::uint64_t index, std::size_t end) const;
  // What the phases after `phase` set in a sector.
  [[nodiscard]] Places set_after(std::size_t phase, std::uint64_t index) const;

  const io::File* image_;
  io::OverlayFile view_;
  std::array<Patches, phase_count> phases_;
  Fresh fresh_;
  std::uint64_t staged_ = 0;  // bytes of all patches
  std::uint64_t limit_ = least_limit;
  std::map<std::uint64_t, std::uint64_t> counted_;  // runs of fresh sectors: their first and end
  std::uint64_t counted_bytes_ = 0;
};

}  // namespace coldchain::edit
