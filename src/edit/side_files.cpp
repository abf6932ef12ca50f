// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cerrno>
#include <filesystem>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/side_files.hpp>

#include <fmt/format.h>

namespace coldchain::edit {

namespace {

// In the name of every side file.
constexpr const char* side_file_mark = ".coldchain-";

std::string numbered(std::string name, unsigned number) {
  return number == 1 ? name : fmt::format("{}-{}", name, number);
}

// Whether another folder can help. A failure of the storage is no reason to go on elsewhere.
bool is_of_folder(const Error& error) {
  switch (error.system_errno) {
    case 0:  // one of ours
    case ENOSPC:
    case EDQUOT:
    case EACCES:
    case EPERM:
    case EROFS:
    case ENAMETOOLONG:
    case ENOENT:
      return error.code != ErrorCode::refused;
    default:
      return false;
  }
}

}  // namespace

std::string SideFiles::Place::pending_path() const {
  return folder ? folder->path_of(pending_name()) : path + "/" + pending_name();
}

Result<bool> SideFiles::Place::has_pending() const {
  return folder ? folder->has(pending_name()) : Result<bool>(false);
}

Result<SideFiles> SideFiles::of(const io::File& image, const SideFolders& folders) {
  SideFiles side_files =
      TRY(image.status().kind == io::FileKind::block_device ? of_device(image, folders)
                                                            : of_file(image, folders));
  side_files.options_ = folders.options;
  if (folders.undo.empty())
    return side_files;
  // Found out before anything is changed.
  side_files.undo_folder_ = TRY(io::Folder::open(folders.undo));
  const Place& journal = side_files.first_choice();
  if (journal.folder && !TRY(side_files.undo_folder_->is_on_file_system_of(*journal.folder)))
    return fail(ErrorCode::refused,
                fmt::format("{} is on another file system than {}", folders.undo, journal.path));
  return side_files;
}

Result<SideFiles> SideFiles::of_file(const io::File& image, const SideFolders& folders) {
  const io::Location location = TRY(image.location());
  io::Folder folder = TRY(io::Folder::open(location.folder, folders.access_time_guard));
  if (!folder.has_file(location.name, image.status().identity))
    return fail(ErrorCode::refused,
                "the image was moved or replaced while it was opened: try again");
  SideFiles side_files(folder.path_of(location.name), image.status().owner);
  Place beside{.path = folder.path(), .name = location.name};
  beside.folder = std::move(folder);
  side_files.places_.push_back(std::make_unique<Place>(std::move(beside)));
  TRY(side_files.add_other(image, folders));
  TRY(side_files.add_state(image, folders));
  return side_files;
}

Result<SideFiles> SideFiles::of_device(const io::File& device, const SideFolders& folders) {
  const io::Location location = TRY(device.location());
  SideFiles side_files(location.folder + "/" + location.name, device.status().owner);
  TRY(side_files.add_state(device, folders));
  TRY(side_files.add_other(device, folders));
  side_files.first_choice_ = side_files.places_.size() - 1;
  if (const Place& first = side_files.first_choice(); first.folder)
    TRY(check_lasts(*first.folder));
  return side_files;
}

Result<void> SideFiles::add_other(const io::File& image, const SideFolders& folders) {
  const std::string& path = folders.other;
  if (path.empty())
    return {};
  Result<io::Folder> folder = io::Folder::open(path, folders.access_time_guard);
  if (!folder)
    return fail(with_context(folder.error(), "the folder for the journal"));
  const io::FileIdentity identity = TRY(folder->identity());
  for (const auto& place : places_) {
    if (place->folder && TRY(place->folder->identity()) == identity)
      return {};
  }
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  Place place{.path = error ? path : absolute.lexically_normal().string(), .needs_marker = true};
  place.name = TRY(name_elsewhere(image));
  place.folder = std::move(*folder);
  places_.push_back(std::make_unique<Place>(std::move(place)));
  return {};
}

Result<void> SideFiles::add_state(const io::File& image, const SideFolders& folders) {
  Place place{.path = folders.state, .is_created = true};
  Result<io::Folder> folder = io::Folder::open(folders.state, folders.access_time_guard);
  if (folder) {
    place.name = TRY(name_elsewhere(image));
    place.folder = std::move(*folder);
  } else if (folder.error().code != ErrorCode::not_found) {
    hidden_ = with_context(folder.error(),
                           "a change may be pending, because the folder for "
                           "journals cannot be searched");
  }
  places_.push_back(std::make_unique<Place>(std::move(place)));
  return {};
}

Result<std::string> SideFiles::name_elsewhere(const io::File& image) const {
  const std::uint64_t number = image.status().lasting_identity.inode;
  if (image.status().kind == io::FileKind::block_device)
    return fmt::format("device-{:x}", number);
  return fmt::format("file-{:x}-{:x}", number, TRY(home().folder->file_system_of(home().name)));
}

Result<void> SideFiles::check_lasts(const io::Folder& folder) {
  if (TRY(folder.is_volatile()))
    return fail(ErrorCode::unsupported,
                fmt::format("{} is in memory: a side file there would be lost at the next boot",
                            folder.path()));
  return {};
}

std::string SideFiles::operand() const {
  const Place& journal = has_pending().value_or(true) ? place_or_home() : first_choice();
  std::string options = options_;
  if (journal.needs_marker)
    options +=
        fmt::format("{}--state-dir {}", options.empty() ? "" : " ", to_shell_word(journal.path));
  return options.empty() ? to_shell_word(image_path_)
                         : fmt::format("{} {}", options, to_shell_word(image_path_));
}

Result<SideFiles::Place*> SideFiles::place() const {
  for (const auto& candidate : places_) {
    if (TRY(candidate->has_pending()) && (candidate.get() != &home() || !marker()))
      return candidate.get();
  }
  return &home();
}

std::optional<JournalFacts> SideFiles::marker() const {
  if (!home().folder)
    return std::nullopt;
  const Result<std::unique_ptr<io::File>> file = home().folder->read(home().pending_name());
  Result<JournalHead> head = file ? Journal::read_head(**file) : fail(file.error());
  if (!head || head->facts.change.operation != Operation::elsewhere)
    return std::nullopt;
  return std::move(head->facts);
}

bool SideFiles::has_searched(const JournalFacts& marker) const {
  return std::any_of(places_.begin(), places_.end(), [&](const auto& place) {
    const Result<io::FileIdentity> identity =
        place->folder ? place->folder->identity() : fail(ErrorCode::not_found, "");
    return identity && identity->inode == marker.change.argument;
  });
}

std::string SideFiles::pending_path() const {
  return place_or_home().pending_path();
}

Result<bool> SideFiles::has_pending() const {
  return TRY(place())->has_pending();
}

Result<const io::Folder*> SideFiles::folder_of_pending() const {
  const Place& place = *TRY(this->place());
  if (!place.folder)
    return fail(ErrorCode::not_found, place.pending_path());
  return &*place.folder;
}

Result<std::unique_ptr<io::WritableFile>> SideFiles::open_pending() const {
  return TRY(folder_of_pending())->open_file(TRY(place())->pending_name());
}

Result<std::unique_ptr<io::File>> SideFiles::read_pending() const {
  return TRY(folder_of_pending())->read(TRY(place())->pending_name());
}

Result<std::uint32_t> SideFiles::owner_of_pending() const {
  return TRY(folder_of_pending())->owner_of(TRY(place())->pending_name());
}

Result<std::uint64_t> SideFiles::available_bytes() const {
  return home().folder ? home().folder->available_bytes() : fail(ErrorCode::not_found, home().path);
}

Result<std::unique_ptr<io::WritableFile>> SideFiles::create_pending(const io::File& image,
                                                                    std::uint64_t bytes,
                                                                    std::uint64_t data_bytes,
                                                                    bool stays) const {
  if (TRY(has_pending()))
    return fail(ErrorCode::refused, fmt::format("{} exists", to_terminal(pending_path())));
  std::vector<Place*> candidates{&first_choice()};
  for (const auto& place : places_) {
    if (place.get() != candidates.front())
      candidates.push_back(place.get());
  }
  if (stays)
    std::erase_if(candidates, [](const Place* place) { return place->needs_marker; });
  std::string reasons;
  for (Place* place : candidates) {
    const std::uint64_t needed = place == &home() ? bytes + data_bytes : bytes;
    Result<std::unique_ptr<io::WritableFile>> file = create_in(*place, image, bytes, needed);
    if (file || !is_of_folder(file.error()))
      return file;
    const std::string folder = to_terminal(place->path);
    const std::string& reason = file.error().message;
    reasons += reasons.empty() ? "" : "; ";
    reasons += reason.starts_with(folder) ? reason : fmt::format("{}: {}", folder, reason);
  }
  return fail(ErrorCode::refused,
              fmt::format("no folder can take the journal, which needs {} bytes ({}). Make room in "
                          "one of these folders, or run the command as a user who may write there",
                          bytes, reasons));
}

Result<std::unique_ptr<io::WritableFile>> SideFiles::create_in(Place& place, const io::File& image,
                                                               std::uint64_t bytes,
                                                               std::uint64_t needed) const {
  if (!place.folder)
    place.folder = TRY(io::Folder::open_or_create(place.path));
  if (place.name.empty())
    place.name = TRY(name_elsewhere(image));
  // An image in memory is lost at a boot, too.
  const bool is_of_file = image.status().kind != io::FileKind::block_device;
  if (!is_of_file || (&place != &home() && !TRY(home().folder->is_volatile())))
    TRY(check_lasts(*place.folder));
  if (const std::uint64_t available = TRY(place.folder->available_bytes()); available < needed)
    return fail(ErrorCode::io_error,
                fmt::format("{} bytes are needed, and {} are available", needed, available));
  if (place.needs_marker)
    TRY(create_marker(place, image));
  Result<std::unique_ptr<io::WritableFile>> file = create_file(place, bytes);
  if (!file && place.needs_marker)
    (void)remove_marker();
  return file;
}

Result<std::unique_ptr<io::WritableFile>> SideFiles::create_file(const Place& place,
                                                                 std::uint64_t bytes) {
  std::unique_ptr<io::WritableFile> file = TRY(place.folder->create(place.pending_name()));
  const auto reserve = [&]() -> Result<void> {
    TRY(file->resize(bytes));
    TRY(file->reserve({{0}, {bytes}}));
    return place.folder->sync();
  };
  if (const Result<void> done = reserve(); !done) {
    (void)place.folder->remove(place.pending_name());
    return fail(done.error());
  }
  return file;
}

Result<void> SideFiles::create_marker(const Place& place, const io::File& image) const {
  const ChangeFacts facts{.verb = place.path,
                          .operation = Operation::elsewhere,
                          .argument = TRY(place.folder->identity()).inode};
  if (!home().folder)
    home().folder = TRY(io::Folder::open_or_create(home().path));
  if (home().name.empty())
    home().name = TRY(name_elsewhere(image));
  const Transaction nothing(image);
  const std::uint64_t bytes = TRY(Journal::size_of(nothing));
  const std::unique_ptr<io::WritableFile> file = TRY(create_file(home(), bytes));
  const Result<Journal> marker =
      Journal::create(*file, nothing, image.status().lasting_identity, facts);
  if (marker)
    return {};
  (void)home().folder->remove(home().pending_name());
  return fail(marker.error());
}

Result<void> SideFiles::remove_marker() const {
  if (!marker())
    return {};
  TRY(home().folder->remove(home().pending_name()));
  return home().folder->sync();
}

Result<void> SideFiles::remove_pending() const {
  const io::Folder& folder = *TRY(folder_of_pending());
  const std::string name = TRY(place())->pending_name();
  TRY(folder.remove(name));
  TRY(folder.sync());
  return remove_marker();
}

Result<std::string> SideFiles::keep_pending(bool stays) const {
  const io::Folder& own = *TRY(folder_of_pending());
  const std::string pending_name = TRY(place())->pending_name();
  const std::string kept = TRY(place())->name + side_file_mark + "undo";
  const bool moves = !stays && undo_folder_ && TRY(undo_folder_->is_on_file_system_of(own));
  const io::Folder& folder = moves ? *undo_folder_ : own;
  for (unsigned number = 1;; ++number) {
    const std::string name = numbered(kept, number);
    if (TRY(folder.has(name)))
      continue;
    TRY(own.move(pending_name, folder, name));
    // With either name the file leads to the same end: where this fails, nothing is lost.
    (void)folder.sync();
    (void)own.sync();
    TRY(remove_marker());
    return folder.path_of(name);
  }
}

// Only of what is done is the name changed.
Result<void> SideFiles::finish_keeping() const {
  const Result<std::unique_ptr<io::File>> pending = read_pending();
  const Result<JournalHead> head = pending ? Journal::read_head(**pending) : fail(pending.error());
  if (!head || head->state != JournalState::done)
    return {};
  const io::Folder& own = *TRY(folder_of_pending());
  const std::string pending_name = TRY(place())->pending_name();
  for (const io::Folder* folder : {&own, undo_folder_ ? &*undo_folder_ : &own}) {
    const std::vector<std::string> names = TRY(folder->names());
    const bool has_other_name =
        std::any_of(names.begin(), names.end(), [&](const std::string& name) {
          return name.find(side_file_mark) != std::string::npos &&
                 (folder != &own || name != pending_name) &&
                 own.is_also(pending_name, *folder, name);
        });
    if (has_other_name)
      return remove_pending();
  }
  return {};
}

std::string SideFiles::set_aside_path() const {
  const Place& place = place_or_home();
  const std::string given_up = place.name + side_file_mark + "given-up";
  for (unsigned number = 1;; ++number) {
    const std::string name = numbered(given_up, number);
    if (!place.folder || !place.folder->has(name).value_or(false))
      return place.path + "/" + name;
  }
}

std::string SideFiles::set_aside_command() const {
  return fmt::format("mv {} {}", to_shell_word(pending_path()), to_shell_word(set_aside_path()));
}

Result<std::vector<SideFiles::Found>> SideFiles::find_all() const {
  std::vector<Found> found;
  for (std::size_t i = 0; i < places_.size(); ++i) {
    if (!places_[i]->folder)
      continue;
    const std::string own = places_[i]->name + side_file_mark;
    for (const std::string& name : TRY(places_[i]->folder->names())) {
      const bool is_by_name = name.starts_with(own);
      // Elsewhere lie the side files of images of other file systems, too, whose inodes say
      // nothing.
      if (is_by_name || (i == 0 && name.find(side_file_mark) != std::string::npos))
        found.push_back({i, name, is_by_name});
    }
  }
  return found;
}

Result<std::unique_ptr<io::File>> SideFiles::read(const Found& found) const {
  return places_[found.folder]->folder->read(found.name);
}

}  // namespace coldchain::edit
