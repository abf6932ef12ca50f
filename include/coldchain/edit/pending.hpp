// SPDX-License-Identifier: MIT
// Describes the file with the name of an image's journal, for verbs that only read and for verbs
// that need to know it before they change an image. The description always says how to continue,
// because any user who can write to the folder can put a file there.
#pragma once

#include <optional>

#include <coldchain/edit/journal.hpp>
#include <coldchain/edit/side_files.hpp>

namespace coldchain::edit {

enum class PendingKind {
  none,
  unfinished,    // a journal that was never finished: the image was not touched
  believed,      // a journal of this image, whose `head` decides what is done (trust.hpp)
  not_believed,  // another user can have written it, or the caller may not read it
  no_journal,    // a damaged journal, one of another image, or something else
};

struct PendingFile {
  PendingKind kind{};
  std::optional<JournalHead> head{};  // of a journal, whether it is believed or not
  // The kind of file, and the commands that continue the change or set the file aside. Set for
  // not_believed (permission_denied) and no_journal.
  std::optional<Error> error{};
};

[[nodiscard]] Result<PendingFile> look_at_pending(const io::File& image,
                                                  const SideFiles& side_files);

// The head of a journal that is believed; nothing if there is none or if it is incomplete. Fails if
// the file is not believed or is not a journal.
[[nodiscard]] Result<std::optional<JournalHead>> read_pending(const io::File& image,
                                                              const SideFiles& side_files);

// For a change that cannot continue another one. Error: `refused`, with the commands to run, if
// anything is pending.
[[nodiscard]] Result<void> check_nothing_pending(const io::File& image,
                                                 const SideFiles& side_files);

}  // namespace coldchain::edit
