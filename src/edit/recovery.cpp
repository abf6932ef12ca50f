// SPDX-License-Identifier: MIT
#include <algorithm>
#include <unordered_map>

#include <coldchain/base/try.hpp>
#include <coldchain/edit/recovery.hpp>

#include <fmt/format.h>

namespace coldchain::edit {

namespace {

constexpr std::uint64_t sector_size = io::OverlayFile::sector_size;

// How far each sector has come: 0 where it is as before, n + 1 where it is as phase n leaves it.
// Sectors that are no longer before the last change are rewritten with what they hold, too: after a
// failed flush, what reads back may not be on the storage.
class Progress {
 public:
  Progress(const Journal& journal, const io::File& image) : journal_(journal), image_(image) {}

  Result<void> find() {
    const JournalFacts& facts = journal_.facts();
    const std::uint64_t size = image_.size();
    // Copying takes long: what somebody has appended meanwhile is in nobody's way.
    const bool may_be_longer = has_data(facts.change.operation);
    if (size < facts.size_before || (size > facts.size_after && !may_be_longer))
      return fail(ErrorCode::refused,
                  fmt::format("the image has {} bytes, not {} or {}: somebody has written to it "
                              "meanwhile",
                              size, facts.size_before, facts.size_after));
    for (std::size_t i = 0; i < journal_.change_count(); ++i) {
      const Change change = TRY(journal_.read_change(i));
      const Bytes now = TRY(read(change));
      for (std::uint64_t at = 0; at < now.size(); at += sector_size)
        note(change, now, at);
    }
    for (const auto& [sector, state] : sectors_) {
      if (!state.is_known)
        return fail(ErrorCode::refused,
                    fmt::format("at {:#x} the image holds neither what it held before nor what it "
                                "should hold: somebody has written to it meanwhile",
                                sector * sector_size));
    }
    return {};
  }

  // Whether a change is carried out.
  [[nodiscard]] bool has_reached(const Change& change) {
    for (std::uint64_t at = 0; at < change.after.size(); at += sector_size) {
      if (sectors_[(change.offset.value + at) / sector_size].reached <=
          static_cast<unsigned>(change.phase))
        return false;
    }
    return true;
  }

  [[nodiscard]] bool has_begun(Phase phase) const {
    return std::any_of(sectors_.begin(), sectors_.end(), [&](const auto& sector) {
      return sector.second.reached > static_cast<unsigned>(phase);
    });
  }

  // The bytes that `change` leaves, forward or back.
  Result<Bytes> after(const Change& change, bool is_forward) {
    const unsigned step = static_cast<unsigned>(change.phase) + 1;
    Bytes bytes = TRY(read(change));
    const Bytes& wanted = is_forward ? change.after : change.before;
    for (std::uint64_t at = 0; at < bytes.size(); at += sector_size) {
      unsigned& reached = sectors_[change.offset.value / sector_size + at / sector_size].reached;
      if (is_forward ? reached >= step : reached < step)
        continue;
      reached = is_forward ? step : step - 1;
      std::copy_n(wanted.begin() + static_cast<std::ptrdiff_t>(at), sector_size,
                  bytes.begin() + static_cast<std::ptrdiff_t>(at));
    }
    return bytes;
  }

 private:
  struct State {
    unsigned reached = 0;
    bool is_known = false;
  };

  [[nodiscard]] Result<Bytes> read(const Change& change) const {
    Bytes bytes(change.after.size());
    TRY(io::read_zero_extended(image_, change.offset, bytes));
    return bytes;
  }

  void note(const Change& change, const Bytes& now, std::uint64_t at) {
    State& state = sectors_[(change.offset.value + at) / sector_size];
    const auto equals = [&](const Bytes& other) {
      return std::equal(now.begin() + static_cast<std::ptrdiff_t>(at),
                        now.begin() + static_cast<std::ptrdiff_t>(at + sector_size),
                        other.begin() + static_cast<std::ptrdiff_t>(at));
    };
    if (equals(change.after)) {
      state.reached = static_cast<unsigned>(change.phase) + 1;  // phases come in order
      state.is_known = true;
    } else if (equals(change.before)) {
      state.is_known = true;
    }
  }

  const Journal& journal_;
  const io::File& image_;
  std::unordered_map<std::uint64_t, State> sectors_;
};

Result<void> write_below(io::WritableFile& image, HostOffset offset, ByteView bytes,
                         std::uint64_t size) {
  if (offset.value >= size)
    return {};
  return image.write_at(offset,
                        bytes.first(std::min<std::uint64_t>(bytes.size(), size - offset.value)));
}

}  // namespace

Result<std::unique_ptr<io::OverlayFile>> result_of_roll(const Journal& journal,
                                                        const io::File& image, bool is_forward) {
  Progress progress(journal, image);
  TRY(progress.find());
  auto result = std::make_unique<io::OverlayFile>(image);
  const std::size_t count = journal.change_count();
  for (std::size_t i = 0; i < count; ++i) {
    const Change change = TRY(journal.read_change(is_forward ? i : count - 1 - i));
    const Bytes& bytes = is_forward ? change.after : change.before;
    for (std::uint64_t at = 0; at < bytes.size(); at += sector_size) {
      io::OverlayFile::Sector sector;
      std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), sector_size, sector.begin());
      result->put((change.offset.value + at) / sector_size, sector);
    }
  }
  result->resize(is_forward ? journal.facts().size_after : journal.facts().size_before);
  return result;
}

Result<bool> has_reached(const Journal& journal, const io::File& image, Phase end) {
  Progress progress(journal, image);
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
  Progress progress(journal, image);
  TRY(progress.find());
  return progress.has_begun(phase);
}

Result<void> roll_forward(const Journal& journal, io::WritableFile& image) {
  return roll_forward_until(journal, image, Phase{phase_count});
}

Result<void> roll_forward_until(const Journal& journal, io::WritableFile& image, Phase end) {
  TRY(image.refresh());
  Progress progress(journal, image);
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
  Progress progress(journal, image);
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
