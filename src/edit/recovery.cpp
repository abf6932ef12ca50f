// SPDX-License-Identifier: MIT
#include "rolled_file.hpp"

#include <algorithm>
#include <vector>

#include <coldchain/base/try.hpp>
#include <coldchain/edit/recovery.hpp>

#include <fmt/format.h>

namespace coldchain::edit {

namespace {

// Where the journal has records, by sector of the image: one byte each, in the order of the image.
class SectorStates {
 public:
  explicit SectorStates(const Journal& journal) {
    std::vector<HostRange> ranges;
    for (std::size_t i = 0; i < journal.change_count(); ++i)
      ranges.push_back(journal.range_of(i));
    std::sort(ranges.begin(), ranges.end(),
              [](const HostRange& a, const HostRange& b) { return a.begin < b.begin; });
    std::uint64_t sectors = 0;
    for (const HostRange& range : ranges) {
      if (ranges_.empty() || ranges_.back().range.end < range.begin) {
        ranges_.push_back({range, sectors});
        sectors += range.size() / sector_size;
      } else if (ranges_.back().range.end < range.end) {
        sectors += (range.end - ranges_.back().range.end) / sector_size;
        ranges_.back().range.end = range.end;
      }
    }
    states_.resize(sectors);
  }

  // Of the sectors from `offset` on, which a record has.
  [[nodiscard]] std::uint8_t* at(HostOffset offset) {
    const auto behind = std::upper_bound(
        ranges_.begin(), ranges_.end(), offset,
        [](HostOffset wanted, const Range& range) { return wanted < range.range.begin; });
    const Range& range = *std::prev(behind);
    return states_.data() + range.first + (offset - range.range.begin) / sector_size;
  }

  [[nodiscard]] const std::vector<std::uint8_t>& all() const { return states_; }

  // Where a sector lies, by its number.
  [[nodiscard]] HostOffset offset_of(std::uint64_t number) const {
    const auto behind = std::upper_bound(
        ranges_.begin(), ranges_.end(), number,
        [](std::uint64_t wanted, const Range& range) { return wanted < range.first; });
    const Range& range = *std::prev(behind);
    return range.range.begin + (number - range.first) * sector_size;
  }

 private:
  struct Range {
    HostRange range;
    std::uint64_t first = 0;  // sector of all
  };
  std::vector<Range> ranges_;
  std::vector<std::uint8_t> states_;
};

// How far each sector has come: 0 where it is as before, n + 1 where it is as phase n leaves it.
// Sectors that are no longer before the last change are rewritten with what they hold, too: after a
// failed flush, what reads back may not be on the storage.
class ChangeState {
 public:
  ChangeState(const Journal& journal, const io::File& image)
      : journal_(journal), image_(image), sectors_(journal) {}

  Result<void> find() {
    const JournalFacts& facts = journal_.facts();
    const std::uint64_t size = image_.size();
    // Copying takes long: what somebody has appended meanwhile is in nobody's way.
    const bool may_be_longer = has_data(facts.change.operation);
    if (size < facts.size_before || (size > facts.size_after && !may_be_longer))
      return fail(
          ErrorCode::refused,
          fmt::format(
              "the image has {} bytes, not {} or {}: another program has written to it since", size,
              facts.size_before, facts.size_after));
    for (std::size_t i = 0; i < journal_.change_count(); ++i) {
      const Change change = TRY(journal_.read_change(i));
      const Bytes now = TRY(read(change));
      std::uint8_t* states = sectors_.at(change.offset);
      for (std::uint64_t at = 0; at < now.size(); at += sector_size)
        note(change, now, at, *states++);
    }
    const std::vector<std::uint8_t>& all = sectors_.all();
    const auto unknown = std::find_if(all.begin(), all.end(),
                                      [](std::uint8_t state) { return (state & is_known) == 0; });
    if (unknown != all.end())
      return fail(
          ErrorCode::refused,
          fmt::format("at {:#x} the image holds neither what it held before nor what it should "
                      "hold: another program has written to it since",
                      sectors_.offset_of(static_cast<std::uint64_t>(unknown - all.begin())).value));
    return {};
  }

  // Whether a change is carried out.
  [[nodiscard]] bool has_reached(const Change& change) {
    const std::uint8_t* const states = sectors_.at(change.offset);
    return std::all_of(states, states + change.after.size() / sector_size,
                       [&](std::uint8_t state) { return reached(state) > rank(change.phase); });
  }

  [[nodiscard]] bool has_begun(Phase phase) const {
    const std::vector<std::uint8_t>& all = sectors_.all();
    return std::any_of(all.begin(), all.end(),
                       [&](std::uint8_t state) { return reached(state) > rank(phase); });
  }

  // The bytes that `change` leaves, forward or back.
  Result<Bytes> after(const Change& change, bool is_forward) {
    const unsigned step = rank(change.phase) + 1;
    Bytes bytes = TRY(read(change));
    const Bytes& wanted = is_forward ? change.after : change.before;
    std::uint8_t* states = sectors_.at(change.offset);
    for (std::uint64_t at = 0; at < bytes.size(); at += sector_size) {
      std::uint8_t& state = *states++;
      if (is_forward ? reached(state) >= step : reached(state) < step)
        continue;
      state = static_cast<std::uint8_t>(is_known | (is_forward ? step : step - 1));
      std::copy_n(wanted.begin() + static_cast<std::ptrdiff_t>(at), sector_size,
                  bytes.begin() + static_cast<std::ptrdiff_t>(at));
    }
    return bytes;
  }

 private:
  // Of a state, beside how far it has come.
  static constexpr std::uint8_t is_known = 0x80;
  static_assert(phase_count < is_known);

  static unsigned reached(std::uint8_t state) { return state & ~unsigned{is_known}; }
  static unsigned rank(Phase phase) { return static_cast<unsigned>(phase); }

  [[nodiscard]] Result<Bytes> read(const Change& change) const {
    Bytes bytes(change.after.size());
    TRY(io::read_zero_extended(image_, change.offset, bytes));
    return bytes;
  }

  static void note(const Change& change, const Bytes& now, std::uint64_t at, std::uint8_t& state) {
    const auto equals = [&](const Bytes& other) {
      return std::equal(now.begin() + static_cast<std::ptrdiff_t>(at),
                        now.begin() + static_cast<std::ptrdiff_t>(at + sector_size),
                        other.begin() + static_cast<std::ptrdiff_t>(at));
    };
    if (equals(change.after))
      state = static_cast<std::uint8_t>(is_known | (rank(change.phase) + 1));  // phases in order
    else if (equals(change.before))
      state |= is_known;
  }

  const Journal& journal_;
  const io::File& image_;
  SectorStates sectors_;
};

Result<void> write_below(io::WritableFile& image, HostOffset offset, ByteView bytes,
                         std::uint64_t size) {
  if (offset.value >= size)
    return {};
  return image.write_at(offset,
                        bytes.first(std::min<std::uint64_t>(bytes.size(), size - offset.value)));
}

}  // namespace

Result<std::unique_ptr<io::File>> result_of_roll(std::shared_ptr<const Journal> journal,
                                                 const io::File& image, bool is_forward) {
  TRY(ChangeState(*journal, image).find());
  return std::make_unique<RolledFile>(std::move(journal), image, is_forward);
}

Result<bool> has_reached(const Journal& journal, const io::File& image, Phase end) {
  ChangeState progress(journal, image);
  TRY(progress.find());
  if (image.size() < journal.facts().size_after)
    return false;
  for (std::size_t i = 0; i < journal.change_count() && journal.phase_of(i) < end; ++i) {
    if (!progress.has_reached(TRY(journal.read_change(i))))
      return false;
  }
  return true;
}

Result<bool> has_begun(const Journal& journal, const io::File& image, Phase phase) {
  ChangeState progress(journal, image);
  TRY(progress.find());
  return progress.has_begun(phase);
}

Result<void> roll_forward(const Journal& journal, io::WritableFile& image) {
  return roll_forward_until(journal, image, Phase{phase_count});
}

Result<void> roll_forward_until(const Journal& journal, io::WritableFile& image, Phase end) {
  TRY(image.refresh());
  ChangeState progress(journal, image);
  TRY(progress.find());
  const std::uint64_t size = journal.facts().size_after;
  if (image.size() < size)
    TRY(image.resize(size));
  for (std::size_t i = 0; i < journal.change_count() && journal.phase_of(i) < end; ++i) {
    if (i != 0 && journal.phase_of(i) != journal.phase_of(i - 1))
      TRY(image.flush());
    const Change change = TRY(journal.read_change(i));
    const Bytes bytes = TRY(progress.after(change, true));
    TRY(write_below(image, change.offset, bytes, size));
  }
  TRY(image.flush());
  return image.refresh();
}

Result<void> roll_back(const Journal& journal, io::WritableFile& image, std::uint64_t image_end) {
  TRY(image.refresh());
  ChangeState progress(journal, image);
  TRY(progress.find());
  const std::uint64_t size = journal.facts().size_before;
  const bool is_appended_to = image.size() > journal.facts().size_after;
  for (std::size_t i = journal.change_count(); i-- > 0;) {
    const Change change = TRY(journal.read_change(i));
    const Bytes bytes = TRY(progress.after(change, false));
    TRY(write_below(image, change.offset, bytes, size));
    if (i != 0 && journal.phase_of(i) != journal.phase_of(i - 1))
      TRY(image.flush());
  }
  TRY(image.flush());
  if (image.size() > std::max(size, image_end) && !is_appended_to)
    TRY(image.resize(std::max(size, image_end)));
  TRY(image.flush());
  return image.refresh();
}

}  // namespace coldchain::edit
