// SPDX-License-Identifier: MIT
// The location of an image's side files. The journal of a pending change has a fixed name in a
// fixed folder, so that every program finds it, and two changes cannot be pending at once. This
// folder, the *home*, is the one of the regular file at the end of all symbolic links; for a block
// device, it is the state folder. If the home cannot take the journal, the journal lies in another
// folder: in the state folder, which every program searches, or in a folder that the caller names.
// A journal in the latter has a *marker* in the home, which says where it lies.
// docs/formats/journal.md, "Where".
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <coldchain/edit/journal.hpp>
#include <coldchain/io/folder.hpp>
#include <coldchain/io/open.hpp>

namespace coldchain::edit {

// The suffix of the name of a pending side file.
constexpr const char* pending_suffix = ".coldchain-pending";

struct SideFolders {
  // The state folder: the home for block devices, and searched for every image. It must outlast a
  // boot.
  std::string state = "/var/lib/coldchain";
  std::string other{};  // the folder that the caller names for journals; empty: none
  // Where kept files go, on the file system of the pending one; empty: beside it.
  std::string undo{};
  // Words for a shell that lead a command to the same files again (--sysroot DIR). They are told
  // with each command that somebody is advised to run.
  std::string options{};
  // For a verb that only looks at what is pending.
  io::AccessTimeGuard access_time_guard{};
};

class SideFiles {
 public:
  // They lie where the file that is open lies now.
  [[nodiscard]] static Result<SideFiles> of(const io::File& image, const SideFolders& folders);

  [[nodiscard]] const std::string& image_path() const { return image_path_; }
  // For a shell: the image as the operand of a command that is to find these side files.
  [[nodiscard]] std::string operand() const;
  [[nodiscard]] std::uint32_t image_owner() const { return owner_; }

  // The journal, wherever it lies; a marker without a journal; or the path in the home.
  [[nodiscard]] std::string pending_path() const;
  [[nodiscard]] Result<bool> has_pending() const;
  // Any user may have put it there (trust.hpp).
  [[nodiscard]] Result<std::unique_ptr<io::WritableFile>> open_pending() const;
  [[nodiscard]] Result<std::unique_ptr<io::File>> read_pending() const;
  [[nodiscard]] Result<std::uint32_t> owner_of_pending() const;
  // Whether a marker names one of the folders that were searched.
  [[nodiscard]] bool has_searched(const JournalFacts& marker) const;
  // Why a journal may be pending that this process cannot find.
  [[nodiscard]] const std::optional<Error>& hidden() const { return hidden_; }

  // A new journal in the first folder that can take it, with storage for `bytes`. In the home,
  // `data_bytes` more must be available. A journal that later changes must find when it is kept
  // (`stays`) lies in a folder that every run searches.
  // Order: 1. the marker, flush; 2. the journal. Error: `refused` if no folder can take it.
  [[nodiscard]] Result<std::unique_ptr<io::WritableFile>> create_pending(const io::File& image,
                                                                         std::uint64_t bytes,
                                                                         std::uint64_t data_bytes,
                                                                         bool stays) const;
  // Order: 1. the journal; 2. the marker.
  [[nodiscard]] Result<void> remove_pending() const;

  // On the file system of the home.
  [[nodiscard]] Result<std::uint64_t> available_bytes() const;

  // Renames the pending file to an undo file, and returns the path. With `stays`, it stays in the
  // folder of the pending file, even if there is a folder for undo files.
  [[nodiscard]] Result<std::string> keep_pending(bool stays) const;
  // Finishes a rename that was interrupted between the new name and the old one.
  [[nodiscard]] Result<void> finish_keeping() const;

  // A side file in one of the folders, of any image and any owner.
  struct Found {
    std::size_t folder = 0;
    std::string name;
    bool is_by_name = false;  // it has the name of one of this image
  };
  [[nodiscard]] Result<std::vector<Found>> find_all() const;
  [[nodiscard]] Result<std::unique_ptr<io::File>> read(const Found& found) const;

  // An unused name to which a person can move a pending file that cannot be used.
  [[nodiscard]] std::string set_aside_path() const;
  // For a shell: moves it there.
  [[nodiscard]] std::string set_aside_command() const;

 private:
  // A folder, and the name of the image there.
  struct Place {
    std::string path;
    std::string name{};                  // empty as long as the folder is missing
    bool is_created = false;             // when it is needed and missing
    bool needs_marker = false;           // in the home
    std::optional<io::Folder> folder{};  // nothing as long as it is missing

    [[nodiscard]] std::string pending_name() const { return name + pending_suffix; }
    [[nodiscard]] std::string pending_path() const;
    [[nodiscard]] Result<bool> has_pending() const;
  };

  SideFiles(std::string image_path, std::uint32_t owner)
      : image_path_(std::move(image_path)), owner_(owner) {}

  static Result<SideFiles> of_file(const io::File& image, const SideFolders& folders);
  static Result<SideFiles> of_device(const io::File& device, const SideFolders& folders);
  Result<void> add_other(const io::File& image, const SideFolders& folders);
  Result<void> add_state(const io::File& image, const SideFolders& folders);
  // The image's name in a folder that has the side files of many images.
  [[nodiscard]] Result<std::string> name_elsewhere(const io::File& image) const;
  // Fails if the folder is in memory.
  static Result<void> check_lasts(const io::Folder& folder);

  [[nodiscard]] Place& home() const { return *places_.front(); }
  // Where a new journal goes if nothing is in the way.
  [[nodiscard]] Place& first_choice() const { return *places_[first_choice_]; }
  // Where the journal lies; the home if there is none.
  [[nodiscard]] Result<Place*> place() const;
  [[nodiscard]] Place& place_or_home() const { return *place().value_or(places_.front().get()); }
  [[nodiscard]] Result<const io::Folder*> folder_of_pending() const;
  [[nodiscard]] std::optional<JournalFacts> marker() const;

  // With storage for `bytes`; fails unless `needed` bytes are available there.
  [[nodiscard]] Result<std::unique_ptr<io::WritableFile>> create_in(Place& place,
                                                                    const io::File& image,
                                                                    std::uint64_t bytes,
                                                                    std::uint64_t needed) const;
  [[nodiscard]] static Result<std::unique_ptr<io::WritableFile>> create_file(const Place& place,
                                                                             std::uint64_t bytes);
  [[nodiscard]] Result<void> create_marker(const Place& place, const io::File& image) const;
  [[nodiscard]] Result<void> remove_marker() const;

  // The home first. A place changes when its folder is created.
  std::vector<std::unique_ptr<Place>> places_;
  std::size_t first_choice_ = 0;
  std::optional<io::Folder> undo_folder_;
  std::string image_path_;
  std::uint32_t owner_;          // of the image
  std::string options_;          // before the operand
  std::optional<Error> hidden_;  // of the state folder
};

}  // namespace coldchain::edit
