// SPDX-License-Identifier: MIT
// Interrupted changes whose journals an older coldchain wrote. An archive cannot keep inode
// numbers, by which a journal knows its images, so the journals get those of the unpacked files,
// and the checksums that follow from them. The numbers are offsets in format 1.
#pragma once

#include "process.hpp"
#include "temp_folder.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <coldchain/base/endian.hpp>
#include <coldchain/codec/checksum.hpp>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>

namespace coldchain::testing {

class FormerJournals {
 public:
  FormerJournals() {
    const Process unpacked = run_in(folder_.path(), "tar -xpzf '" COLDCHAIN_SOURCE_DIR
                                                    "/testdata/journals/format-1.tar.gz' "
                                                    "--no-same-owner");
    REQUIRE_MESSAGE(unpacked.status == 0, unpacked.err);
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path()))
      scenes_.push_back(entry.path().filename().string());
    std::sort(scenes_.begin(), scenes_.end());
  }

  [[nodiscard]] const std::vector<std::string>& scenes() const { return scenes_; }

  // Copies a scene into the empty folder `to`.
  void lay_out(const std::string& scene, const TempFolder& to) const {
    const Process copied = run_in(folder_.path(), "cp -p '" + scene + "'/* '" + to.path() +
                                                      "' && rm '" + to.path() + "/files'");
    REQUIRE_MESSAGE(copied.status == 0, copied.err);
    Inodes inodes;
    std::ifstream list(folder_ / (scene + "/files"));
    std::string name;
    std::uint64_t inode = 0;
    for (std::string seconds, nanoseconds; list >> name >> inode >> seconds >> nanoseconds;)
      inodes[name] = {inode, status_of(to / name).st_ino};
    for (const auto& [file, numbers] : inodes) {
      if (file.find(".coldchain-") != std::string::npos)
        adapt(to, file, inodes);
    }
  }

 private:
  struct Numbers {
    std::uint64_t then = 0;
    std::uint64_t now = 0;
  };
  using Inodes = std::map<std::string, Numbers>;

  static struct stat status_of(const std::string& path) {
    struct stat status = {};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    return status;
  }

  template <class Number>
  static Number get(const std::string& bytes, std::size_t at) {
    return *load<Number>(text_bytes(bytes), at);
  }
  template <class Number>
  static void put(std::string& bytes, std::size_t at, Number number) {
    std::memcpy(bytes.data() + at, &number, sizeof number);
  }

  static std::uint64_t now_of(const Inodes& inodes, std::uint64_t then) {
    for (const auto& [name, numbers] : inodes) {
      if (numbers.then == then)
        return numbers.now;
    }
    return then;
  }

  // The CRC-32 of a plan: of what its records write, then of the other images.
  static std::uint32_t digest_of(const TempFolder& folder, const std::string& journal,
                                 const Inodes& inodes, const std::vector<std::string>& images,
                                 bool is_then) {
    std::uint32_t digest = 0;
    for (std::size_t at = 8192; at + 24 <= journal.size();) {
      const std::size_t length = get<be32>(journal, at + 8).get();
      digest = codec::crc32(text_bytes(journal.substr(at, 8)), digest);
      digest = codec::crc32(text_bytes(journal.substr(at + 24 + length, length)), digest);
      at += 24 + 2 * length;
    }
    for (const std::string& image : images) {
      const auto numbers = inodes.find(image);
      if (numbers == inodes.end())
        continue;
      const struct stat status = status_of(folder / image);
      for (const std::uint64_t fact : {is_then ? numbers->second.then : numbers->second.now,
                                       static_cast<std::uint64_t>(status.st_size),
                                       static_cast<std::uint64_t>(status.st_mtim.tv_sec),
                                       static_cast<std::uint64_t>(status.st_mtim.tv_nsec)})
        digest = codec::crc32(bytes_of(be64(fact)), digest);
    }
    return digest;
  }

  static void adapt(const TempFolder& folder, const std::string& file, const Inodes& inodes) {
    const struct stat before = status_of(folder / file);
    std::string journal = read_file(folder / file);
    if (journal.size() < 8192 || journal.substr(0, 8) != "CLDCHAIN")
      return;
    // Records of the base of a commit come with facts of the layers above, of other changes with
    // those of the layers below. Where an image has changed since, nobody asks for the digest.
    const bool is_base = get<be32>(journal, 100).get() == 3;
    const std::vector<std::string> images = is_base
                                                ? std::vector<std::string>{"top", "mid"}
                                                : std::vector<std::string>{"mid", "base", "other"};
    if (get<be32>(journal, 112).get() == digest_of(folder, journal, inodes, images, true))
      put(journal, 112, be32(digest_of(folder, journal, inodes, images, false)));
    for (const std::size_t at : {std::size_t{24}, std::size_t{104}})
      put(journal, at, be64(now_of(inodes, get<be64>(journal, at).get())));
    put(journal, 12, be32(0));
    put(journal, 12, be32(codec::crc32(text_bytes(journal.substr(0, 392)))));
    write_file(folder / file, journal);
    const timespec times[2] = {before.st_atim, before.st_mtim};
    REQUIRE(::utimensat(AT_FDCWD, (folder / file).c_str(), times, 0) == 0);
  }

  TempFolder folder_;
  std::vector<std::string> scenes_;
};

}  // namespace coldchain::testing
