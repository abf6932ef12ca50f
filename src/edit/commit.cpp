// SPDX-License-Identifier: MIT
#include "open_pending.hpp"

#include <cerrno>
#include <new>
#include <stdexcept>

#include <coldchain/base/try.hpp>
#include <coldchain/edit/recovery.hpp>

#include <fmt/format.h>

namespace coldchain::edit {

namespace {

// While the file is longer, others may write to what lies in clusters behind its former end: when
// it is cut again, whole clusters stay.
Result<void> make_whole(const FreshData& data, io::WritableFile& image) {
  if (image.status().kind != io::FileKind::regular || image.size() >= data.whole_size)
    return {};
  TRY(image.resize(data.whole_size));
  return image.flush();
}

// Without the journal.
Result<std::uint64_t> bytes_to_write(const FreshData& data, const Transaction& transaction,
                                     const io::File& image) {
  if (image.status().kind != io::FileKind::regular)
    return 0;
  const std::vector<HostRange>& places = data.places.empty() ? data.ranges : data.places;
  return TRY(io::bytes_without_storage(image, places)) -
         TRY(io::bytes_without_storage(image, data.zeros)) + transaction.changed_bytes();
}

Result<Pending> begin(const Transaction& transaction, io::WritableFile& image,
                      const SideFiles& side_files, const ChangeFacts& change,
                      const FreshData* data) {
  if (data != nullptr)
    TRY(check_room(*data, transaction, image, side_files));
  Pending pending;
  const std::uint64_t data_bytes =
      data != nullptr ? TRY(bytes_to_write(*data, transaction, image)) : 0;
  Result<std::unique_ptr<io::WritableFile>> file = side_files.create_pending(
      image, TRY(Journal::size_of(transaction)), data_bytes, change.kept_clusters != 0);
  if (!file)
    return fail(with_context(file.error(), "nothing was changed"));
  pending.file = std::move(*file);
  const Result<void> whole = data != nullptr ? make_whole(*data, image) : Result<void>{};
  const io::FileIdentity& identity = image.status().lasting_identity;
  Result<Journal> journal =
      whole ? Journal::create(*pending.file, transaction, identity, change) : fail(whole.error());
  if (!journal) {
    (void)side_files.remove_pending();
    return fail(with_context(journal.error(), fmt::format("nothing was changed; the side file {}",
                                                          side_files.pending_path())));
  }
  pending.journal = std::move(*journal);
  return pending;
}

Result<void> write_data(const FreshData& data, Journal& journal, io::WritableFile& image) {
  TRY(roll_forward_until(journal, image, phase_after_data(journal)));
  if (journal.state() == JournalState::applying)
    TRY(journal.set_state(JournalState::writing, {}));
  FreshWriter writer(image, journal, data.ranges, FreshWriter::Mode::write);
  TRY(data.write(writer));
  return journal.set_state(JournalState::linking, {});
}

// Where memory ends, nothing is taken back: that would take memory, too.
Error out_of_memory(const SideFiles& side_files) {
  const Error error{ErrorCode::io_error, "out of memory", ENOMEM};
  const Result<bool> is_pending = side_files.has_pending();
  return is_pending && !*is_pending ? with_context(error, "nothing was changed")
                                    : unfinished(error, false, side_files);
}

template <class Step>
auto with_memory(const SideFiles& side_files, const Step& step) -> decltype(step()) {
  try {
    return step();
  } catch (const std::bad_alloc&) {
    return fail(out_of_memory(side_files));
  } catch (const std::length_error&) {
    return fail(out_of_memory(side_files));
  }
}

// Up to the state `done`.
Result<Pending> carry_out(const Transaction& transaction, io::WritableFile& image,
                          const SideFiles& side_files, const ChangeFacts& change,
                          const FreshData* data) {
  Result<Pending> pending = data != nullptr && TRY(side_files.has_pending())
                                ? open_begun(side_files, image, change)
                                : begin(transaction, image, side_files, change, data);
  if (!pending)
    return fail(pending.error());
  Journal& journal = *pending->journal;
  // What others may have written to since, too.
  if (journal.state() == JournalState::done) {
    if (const Result<void> sound = check_data(*data, journal, image); !sound)
      return fail(is_final(sound.error()) ? only_given_up(sound.error(), side_files)
                                          : unfinished(sound.error(), false, side_files));
    return pending;
  }
  if (data != nullptr && journal.state() == JournalState::linking) {
    if (const Result<void> sound = check_data(*data, journal, image); !sound)
      return fail(is_final(sound.error()) ? only_given_up(sound.error(), side_files)
                                          : unfinished(sound.error(), false, side_files));
  } else if (data != nullptr) {
    // What became of the base, its own message tells.
    if (const Result<void> done = write_data(*data, journal, image); !done)
      return fail(is_commit_top(change.operation) ? done.error()
                                                  : unfinished(done.error(), false, side_files));
  }
  if (const Result<void> done = roll_forward(journal, image); !done) {
    // What was copied is not thrown away.
    if (data == nullptr && roll_back(journal, image) && side_files.remove_pending())
      return fail(with_context(done.error(), "the image was rolled back"));
    return fail(unfinished(done.error(), false, side_files));
  }
  if (const Result<void> done = journal.set_state(JournalState::done, image.status().modified);
      !done)
    return fail(not_put_away(done.error(), side_files));
  return pending;
}

}  // namespace

Result<std::optional<std::string>> commit(const Transaction& transaction, io::WritableFile& image,
                                          const SideFiles& side_files, const ChangeFacts& change,
                                          const FreshData* data) {
  return with_memory(side_files, [&]() -> Result<std::optional<std::string>> {
    const Pending pending = TRY(carry_out(transaction, image, side_files, change, data));
    Result<std::optional<std::string>> kept = put_away(*pending.journal, side_files);
    if (!kept)
      return fail(not_put_away(kept.error(), side_files));
    return kept;
  });
}

Result<void> commit_part(const Transaction& transaction, io::WritableFile& image,
                         const SideFiles& side_files, const ChangeFacts& change,
                         const FreshData& data) {
  return with_memory(side_files, [&]() -> Result<void> {
    TRY(carry_out(transaction, image, side_files, change, &data));
    return {};
  });
}

Result<void> check_room(const FreshData& data, const Transaction& transaction,
                        const io::File& image, const SideFiles& side_files) {
  if (image.status().kind != io::FileKind::regular)
    return {};
  const std::uint64_t needed = TRY(bytes_to_write(data, transaction, image));
  const std::uint64_t available = TRY(side_files.available_bytes());
  if (needed > available)
    return fail(ErrorCode::refused,
                fmt::format("nothing was changed: {} bytes are to be written, and the file system "
                            "has room for {}",
                            needed, available));
  return {};
}

}  // namespace coldchain::edit
