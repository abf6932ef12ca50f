// SPDX-License-Identifier: MIT
// What a commit does, or would do, and what it costs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <coldchain/ops/commit.hpp>
#include <coldchain/report/json_writer.hpp>
#include <coldchain/report/planned.hpp>

namespace coldchain::report {

// An overlay of the image whose backing file the base becomes.
struct Reparented {
  std::string filename;
  std::uint64_t metadata_bytes = 0;  // sectors that change, however often
  std::vector<ops::DirtyBitmap> bitmaps_dirty{};
};

struct CommitFacts {
  const ops::Commit* commit = nullptr;
  const ops::Emptying* emptying = nullptr;  // null where the top keeps what it has
  std::string image;                        // as it was given
  std::string base;                         // as it was opened
  std::vector<std::string> dependents;      // other images that read through the base
  std::vector<std::string> searched{};      // folders where such images were looked for
  std::vector<Reparented> reparented{};
  bool is_plan = false;
  Planned planned{};
};

[[nodiscard]] std::string commit_text(const CommitFacts& facts);
[[nodiscard]] std::string commit_json(const CommitFacts& facts);

// An image for people, and for a command that they can run.
struct ToldImage {
  std::string name;
  std::string operand;  // words for a shell
};
// The text for a commit that is rolled back or abandoned: names the images that may have leaks.
[[nodiscard]] std::string given_up_text(const ToldImage& image, const ToldImage& base,
                                        bool image_may_leak, bool base_may_leak);
// The same, if the image may already have freed data that the base has.
[[nodiscard]] std::string nearly_done_text(const ToldImage& image, const ToldImage& base);
// Of a raw base.
[[nodiscard]] std::string longer_text(const std::string& base, std::uint64_t size_before);
// The parts of the base that may have changed; without a plan, only that they may have.
[[nodiscard]] std::string changed_text(const CommitFacts& facts);
[[nodiscard]] std::string maybe_changed_text(const std::string& image, const std::string& base);

// Warnings that the owner must see, also with -q.
[[nodiscard]] std::string commit_warnings(const CommitFacts& facts);

}  // namespace coldchain::report
