// SPDX-License-Identifier: MIT
// What a machine leaves that loses its power while the program runs. strace tells what the program
// does to the files of a folder; of what no flush came after, any sector may be lost, and of what
// became of names, too.
#pragma once

#include "crash_log.hpp"
#include "draw.hpp"
#include "strace.hpp"

#include <filesystem>
#include <map>

#include <fmt/format.h>

namespace coldchain::testing {

class PowerLoss {
 public:
  // Runs the program in `folder`, and remembers what it did to the files there, from what they are
  // now on. Its exit status is to be 0.
  PowerLoss(const TempFolder& folder, const std::string& arguments) : folder_(folder) {
    for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
      before_[number_of(entry.path().string())] = {bytes_of_file(entry.path().string()),
                                                   entry.last_write_time()};
    const TempFolder log;
    const Process ran = run_in(
        folder.path(),
        "ASAN_OPTIONS=detect_leaks=0 strace -f -y -xx -s 100000000 -o " + (log / "log") +
            " -e trace=openat,pwrite64,ftruncate,fsync,fallocate,unlinkat " COLDCHAIN_PROGRAM " " +
            arguments);
    REQUIRE_MESSAGE(ran.status == 0, ran.err);
    const std::string text = read_file(log / "log");
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      add(std::string_view(text).substr(at, end - at));
      at = end + 1;
    }
  }

  [[nodiscard]] std::size_t steps() const { return steps_.size(); }

  // Makes the folder what it may be when only the first `steps` were done.
  void leave(std::size_t steps, Draw& draw) const {
    const auto percent = static_cast<unsigned>(draw.below(3) * 50);
    const auto keeps = [&] { return draw.chance(percent); };
    for (std::size_t number = 0; number < paths_.size(); ++number) {
      const std::string& path = paths_[number];
      const auto before = before_.find(number);
      const bool existed = before != before_.end();
      if (!is_there(number, steps, existed, keeps)) {
        std::filesystem::remove(path);
        continue;
      }
      write_file(path, after_crash(steps_, steps, number, existed ? before->second.bytes : Bytes(),
                                   keeps));
      // When it was changed last is looked at, too.
      if (existed && !is_changed(number, steps))
        std::filesystem::last_write_time(path, before->second.changed);
    }
  }

 private:
  struct Before {
    Bytes bytes;
    std::filesystem::file_time_type changed;
  };

  // A name that comes or goes, or a flush of the folder.
  struct NameStep {
    std::size_t step = 0;  // how many came before it
    enum class Kind { create, remove, flush } kind{};
    std::size_t file = 0;
  };

  static Bytes bytes_of_file(const std::string& path) {
    const std::string text = read_file(path);
    const ByteView bytes = text_bytes(text);
    return {bytes.begin(), bytes.end()};
  }

  std::size_t number_of(const std::string& path) {
    const auto found = std::find(paths_.begin(), paths_.end(), path);
    if (found != paths_.end())
      return static_cast<std::size_t>(found - paths_.begin());
    paths_.push_back(path);
    return paths_.size() - 1;
  }

  template <class Keeps>
  [[nodiscard]] bool is_there(std::size_t number, std::size_t steps, bool before,
                              const Keeps& keeps) const {
    bool is_sure = before;
    bool may_be = before;
    for (const NameStep& name : names_) {
      if (name.step > steps)
        break;
      if (name.kind == NameStep::Kind::flush)
        is_sure = may_be;
      else if (name.file == number)
        may_be = name.kind == NameStep::Kind::create;
    }
    return is_sure == may_be ? is_sure : keeps() ? may_be : is_sure;
  }

  [[nodiscard]] bool is_changed(std::size_t number, std::size_t steps) const {
    return std::any_of(steps_.begin(), steps_.begin() + static_cast<std::ptrdiff_t>(steps),
                       [&](const CrashStep& step) {
                         return step.file == number && step.kind != CrashStep::Kind::flush;
                       });
  }

  // "\x2f\x74", from behind the mark that it begins with.
  static std::string decoded(std::string_view text, std::size_t from) {
    std::string bytes;
    for (std::size_t at = from; at + 3 < text.size() && text[at] == '\\'; at += 4)
      bytes.push_back(
          static_cast<char>(std::stoi(std::string(text.substr(at + 2, 2)), nullptr, 16)));
    return bytes;
  }

  static std::uint64_t number_behind(std::string_view text, std::size_t at) {
    return std::stoull(std::string(text.substr(at, 24)));
  }

  void add(std::string_view line) {
    const std::size_t name = line.find_first_not_of("0123456789 ");
    const std::size_t open = line.find('(');
    if (name == std::string_view::npos || open == std::string_view::npos ||
        line.find(" = -1 ") != std::string_view::npos)
      return;
    const std::string_view call = line.substr(name, open - name);
    const std::string path = decoded(line, line.find('<') + 1);
    if (!path.starts_with(folder_.path()))
      return;
    const std::size_t quote = line.find('"');
    if (call == "fsync" && path == folder_.path()) {
      names_.push_back({steps_.size(), NameStep::Kind::flush});
    } else if (call == "fsync") {
      steps_.push_back({number_of(path), CrashStep::Kind::flush});
    } else if (call == "openat" && line.find("O_CREAT") != std::string_view::npos) {
      const std::size_t file = number_of(path + "/" + decoded(line, quote + 1));
      names_.push_back({steps_.size(), NameStep::Kind::create, file});
    } else if (call == "unlinkat") {
      const std::size_t file = number_of(path + "/" + decoded(line, quote + 1));
      names_.push_back({steps_.size(), NameStep::Kind::remove, file});
    } else if (call == "ftruncate") {
      steps_.push_back(
          {number_of(path), CrashStep::Kind::resize, number_behind(line, line.find(", ") + 2)});
    } else if (call == "pwrite64") {
      add_write(line, path, quote);
    } else if (call == "fallocate" && line.find("PUNCH_HOLE") != std::string_view::npos) {
      const std::size_t offset = line.find(", ", line.find("PUNCH_HOLE")) + 2;
      const std::uint64_t size = number_behind(line, line.find(", ", offset) + 2);
      steps_.push_back(
          {number_of(path), CrashStep::Kind::write, number_behind(line, offset), Bytes(size)});
    }
  }

  void add_write(std::string_view line, const std::string& path, std::size_t quote) {
    const std::string bytes = decoded(line, quote + 1);
    const std::size_t size = line.find(", ", line.find('"', quote + 1)) + 2;
    const std::size_t offset = line.find(", ", size) + 2;
    REQUIRE(number_behind(line, size) == bytes.size());
    const ByteView view = text_bytes(bytes);
    steps_.push_back({number_of(path), CrashStep::Kind::write, number_behind(line, offset),
                      Bytes(view.begin(), view.end())});
  }

  const TempFolder& folder_;
  std::vector<std::string> paths_;
  std::map<std::size_t, Before> before_;
  CrashLog steps_;
  std::vector<NameStep> names_;
};

}  // namespace coldchain::testing
