// SPDX-License-Identifier: MIT
// A change of an image that fails where it is told to, and what it leaves.
#pragma once

#include "temp_folder.hpp"
#include "writable.hpp"

#include <limits>
#include <new>

#include <coldchain/base/try.hpp>
#include <coldchain/edit/resume.hpp>
#include <coldchain/io/open.hpp>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace coldchain::testing {

inline constexpr int never = std::numeric_limits<int>::max();

// Fails the calls that change a file from the `fails_from`-th to the `fails_to`-th, or finds no
// memory there.
class FaultyFile final : public io::WritableFile {
 public:
  FaultyFile(std::unique_ptr<io::WritableFile> file, int fails_from, int fails_to,
             bool has_no_memory = false)
      : file_(std::move(file)),
        fails_from_(fails_from),
        fails_to_(fails_to),
        has_no_memory_(has_no_memory) {}

  [[nodiscard]] bool has_failed() const { return calls_ >= fails_from_; }

  [[nodiscard]] const io::FileStatus& status() const override { return file_->status(); }
  [[nodiscard]] Result<std::size_t> read_at(HostOffset offset, ByteSpan buffer) const override {
    return file_->read_at(offset, buffer);
  }
  [[nodiscard]] Result<HostOffset> next_data(HostOffset from) const override {
    return file_->next_data(from);
  }
  [[nodiscard]] Result<HostOffset> next_hole(HostOffset from) const override {
    return file_->next_hole(from);
  }
  [[nodiscard]] Result<io::Location> location() const override { return file_->location(); }
  [[nodiscard]] Result<bool> lock_is_held(std::uint64_t byte) const override {
    return file_->lock_is_held(byte);
  }
  [[nodiscard]] Result<void> write_at(HostOffset offset, ByteView bytes) override {
    // Half of the sectors are written, as by a disk that is full.
    if (const Result<void> done = call(28); !done) {
      TRY(file_->write_at(offset, bytes.first(bytes.size() / 1024 * 512)));
      return done;
    }
    return file_->write_at(offset, bytes);
  }
  [[nodiscard]] Result<void> resize(std::uint64_t size) override {
    TRY(call(28));
    return file_->resize(size);
  }
  [[nodiscard]] Result<void> flush() override {
    TRY(call(5));
    return file_->flush();
  }
  [[nodiscard]] Result<void> refresh() override { return file_->refresh(); }
  [[nodiscard]] Result<void> hold_lock(std::uint64_t byte) const override {
    return file_->hold_lock(byte);
  }

 private:
  Result<void> call(int error) {
    ++calls_;
    if (calls_ >= fails_from_ && calls_ <= fails_to_ && has_no_memory_)
      throw std::bad_alloc();
    if (calls_ >= fails_from_ && calls_ <= fails_to_)
      return fail(system_error(error, "a test"));
    return {};
  }

  std::unique_ptr<io::WritableFile> file_;
  int fails_from_;
  int fails_to_;
  bool has_no_memory_;
  int calls_ = 0;
};

inline const std::string old_content(4096, 'o');
inline const std::string new_content = std::string(512, 'n') + std::string(3584, 'o') +
                                       std::string(512, 'f') + std::string(3584, '\0');

// These images are none that could be checked.
inline Result<edit::Examined> find_nothing(const io::File& /*image*/) {
  return edit::Examined{};
}

// An image of o's, which a transaction makes the new content.
class Scene {
 public:
  using Image = std::unique_ptr<io::WritableFile>;

  Scene() { testing::write_file(path(), old_content); }

  [[nodiscard]] std::string path() const { return folder_ / "image"; }
  [[nodiscard]] std::string pending() const { return path() + ".coldchain-pending"; }
  [[nodiscard]] std::string undo_file() const { return path() + ".coldchain-undo"; }
  [[nodiscard]] const TempFolder& folder() const { return folder_; }

  // Kept files go there from now on.
  void keep_in(const std::string& folder) { folders_.undo = folder; }
  [[nodiscard]] edit::SideFolders& folders() { return folders_; }

  [[nodiscard]] Result<edit::SideFiles> side_files(const Image& image) const {
    return edit::SideFiles::of(*image, folders_);
  }

  // A change that was interrupted.
  void interrupt(const edit::ChangeFacts& change) const {
    Image image = open();
    image = std::make_unique<FaultyFile>(std::move(image), 3, never);
    REQUIRE_FALSE(commit(image, change).has_value());
    REQUIRE(::access(pending().c_str(), F_OK) == 0);
  }

  [[nodiscard]] Image open() const { return open_for_writing(path()); }

  Result<std::optional<std::string>> commit(const Image& image,
                                            const edit::ChangeFacts& change) const {
    edit::Transaction transaction(*image);
    transaction.grow(8192);
    TRY(transaction.stage(edit::Phase::fresh, {4096}, Bytes(512, std::byte{'f'})));
    TRY(transaction.stage(edit::Phase::link, {0}, Bytes(512, std::byte{'n'})));
    return edit::commit(transaction, *image, TRY(side_files(image)), change);
  }

  Result<edit::ResumeOutcome> resume(bool abandon) const {
    const Image image = open();
    return edit::resume(*image, TRY(side_files(image)), abandon, find_nothing);
  }

  Result<void> undo() const {
    const Image image = open();
    const io::Folder folder = TRY(io::Folder::open(folder_.path()));
    const auto file = TRY(folder.open_file("image.coldchain-undo"));
    return edit::undo(*file, undo_file(), *image, TRY(side_files(image)), find_nothing);
  }

 private:
  TempFolder folder_;
  edit::SideFolders folders_;
};

inline bool exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

}  // namespace coldchain::testing
