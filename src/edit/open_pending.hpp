// SPDX-License-Identifier: MIT
// What commit, resume and undo share: the side file that is pending, what may be done about it, and
// what people are told of it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <coldchain/edit/resume.hpp>

namespace coldchain::edit {

// What the marker of an undo says that it is; the name of the undo file follows.
constexpr std::string_view undo_verb = "undo ";

constexpr Phase end_of_phases{phase_count};

// The pending journal as it was opened. It is believed, and of this image.
struct Pending {
  std::unique_ptr<io::WritableFile> file;
  std::optional<Journal> journal;  // nothing where it was never finished
};

// Errors say what to do, as those of look_at_pending().
[[nodiscard]] Result<Pending> open_pending(const SideFiles& side_files, const io::File& image);

// A change whose data was being written: it must be the same.
[[nodiscard]] Result<Pending> open_begun(const SideFiles& side_files, const io::File& image,
                                         const ChangeFacts& change);

// What people are told of a side file that leads nowhere,
[[nodiscard]] Error stuck(Error error, const SideFiles& side_files);

// of the marker of an undo, which can be ended by its undo file alone,
[[nodiscard]] Error undo_pending(const JournalFacts& facts, const SideFiles& side_files);

// of a change that was carried out in part,
[[nodiscard]] Error unfinished(Error error, bool goes_back, const SideFiles& side_files);

// of one with data: whoever else writes finds a sound image at each moment of it, so it can end
// where it is,
[[nodiscard]] Error only_given_up(Error error, const SideFiles& side_files);

// and of one that is done, but for its side file.
[[nodiscard]] Error not_put_away(Error error, const SideFiles& side_files);

// The side file of a change that is done is kept or removed. Returns where it is kept.
[[nodiscard]] Result<std::optional<std::string>> put_away(const Journal& journal,
                                                          const SideFiles& side_files);

[[nodiscard]] Result<void> check_identity(const JournalFacts& facts, const io::File& image);

[[nodiscard]] bool is_of(const JournalFacts& facts, const io::File& image);

[[nodiscard]] bool has_data(const Journal& journal);

// The first phase that comes after the data: with that, others see a change. The top of a commit is
// not touched at all before its base is done.
[[nodiscard]] Phase phase_after_data(const Journal& journal);

[[nodiscard]] bool is_part(const Journal& journal);

// Whether whoever goes on must plan it again.
[[nodiscard]] bool is_under_way(const Journal& journal);

// Whether an error says that the image, or what is below it, is not what it was. All others may be
// gone the next time.
[[nodiscard]] bool is_final(const Error& error);

// Of a change that is done, nobody may have written to the image since. What going back has begun
// to write changes that time, too.
[[nodiscard]] Result<void> check_unmodified(const Journal& journal, const io::File& image,
                                            bool may_have_begun);

// Whether a roll leaves what the change says that it leaves: nobody has written since. Returns
// where the image ends then.
[[nodiscard]] Result<std::uint64_t> check_roll(const Journal& journal, const io::File& image,
                                               bool is_forward, const Examine& examine);

// Whether all that was copied is still what it should be, and counted.
[[nodiscard]] Result<void> check_data(const FreshData& data, Journal& journal,
                                      io::WritableFile& image);

// From here on it only goes back, whoever is asked to go on. A repair gives back the file's size,
// too; of a change with data, others may have used what came behind it.
[[nodiscard]] Result<void> go_back(Journal& journal, io::WritableFile& image,
                                   std::uint64_t image_end);

}  // namespace coldchain::edit
