// SPDX-License-Identifier: MIT
// Changes to one image, kept in memory until all of them are known: reads through view() see them,
// so that the result can be checked before a byte of the image changes. They reach the file in the
// order of their phases, a flush between any two, so that at each moment a reader who knows nothing
// of this finds the image no worse than before: at worst there are leaks. docs/formats/journal.md.
#pragma once

#include <algorithm>
#include <array>
#include <bitset>
#include <functional>
#include <map>

#include <coldchain/base/result.hpp>
#include <coldchain/io/overlay_file.hpp>

namespace coldchain::edit {

enum class Phase : std::uint8_t {
  announce,  // header marks that stop being true by what follows
  fresh,     // appended clusters: nobody refers to them yet
  secure,    // refcounts up, references away, copied flags away
  extend,    // references to fresh refcount blocks and tables, whose clusters are counted by now
  link,      // references to fresh clusters, and to such as are counted by now
  release,   // refcounts down, of clusters that nothing refers to any more
  settle,    // copied flags, now that the refcounts are right; what `conclude` gives a meaning
  conclude,  // header marks that become true by what came before
};
constexpr std::size_t phase_count = 8;

// Whole sectors that change together: what they held, and what they will hold. Where a sector
// changes in several phases, `before` is what the phase before left.
struct Change {
  Phase phase{};
  HostOffset offset;
  Bytes before;
  Bytes after;
};

class Transaction {
 public:
  // Changes of one Change come to at most so many bytes.
  static constexpr std::uint64_t most_change_bytes = 1 << 20;

  // `image` outlives the transaction, which only reads it.
  explicit Transaction(const io::File& image) : image_(&image), view_(image) {}

  [[nodiscard]] const io::File& view() const { return view_; }
  [[nodiscard]] bool is_empty() const;
  [[nodiscard]] std::uint64_t size_before() const { return image_->size(); }
  [[nodiscard]] std::uint64_t size_after() const { return view_.size(); }
  // Of the sectors that change, however often.
  [[nodiscard]] std::uint64_t changed_bytes() const;

  // The bytes at `offset`, which lie below size_after(), as they will be from `phase` on.
  [[nodiscard]] Result<void> stage(Phase phase, HostOffset offset, ByteView bytes);
  [[nodiscard]] Result<void> stage_entry(Phase phase, HostOffset offset, std::uint64_t entry);
  // Whole sectors of clusters that nobody refers to yet, in the phase `fresh`. Also what they hold
  // already is part of the change: others may have written there until it is carried out.
  [[nodiscard]] Result<void> stage_fresh(HostOffset offset, ByteView bytes);

  // Forgets all that was staged.
  void discard() {
    phases_ = {};
    view_.reset();
  }

  // Tells who looks at view() of storage that comes with the change, also for data.
  void allocate(std::uint64_t bytes) { view_.allocate(bytes); }

  // Makes the file longer, up to `size`.
  void grow(std::uint64_t size) { view_.resize(std::max(size, size_after())); }

  // In the order in which they are to be written.
  [[nodiscard]] Result<void> for_each_change(
      const std::function<Result<void>(const Change&)>& visit) const;

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
  // The sector as it is when the phases before `end` are done.
  [[nodiscard]] Result<Sector> sector_at(std::uint64_t index, std::size_t end) const;
  // What the phases after `phase` set in a sector.
  [[nodiscard]] Places set_after(std::size_t phase, std::uint64_t index) const;

  const io::File* image_;
  io::OverlayFile view_;
  std::array<Patches, phase_count> phases_;
};

}  // namespace coldchain::edit
