// SPDX-License-Identifier: MIT
// `check`: qemu-img 7.2's messages, summary and JSON, and every finding.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <coldchain/check/check.hpp>
#include <coldchain/report/json_writer.hpp>
#include <coldchain/report/sink.hpp>
#include <coldchain/report/style.hpp>

namespace coldchain::report {

// From harmless to worse.
enum class Verdict { clean, no_checks, leaks, corrupt, failed };
[[nodiscard]] std::string_view to_string(Verdict verdict);

// What is reported of one image.
struct CheckedImage {
  std::string filename;  // as it was given
  std::string format;    // empty if unknown
  Verdict verdict{};
  // Why there is no verdict, or only a part of one: the image or a layer below it cannot be opened,
  // or qemu-img's check would have stopped.
  std::vector<std::string> failures;
  check::Counts counts;
  std::uint64_t corruptions_fixed = 0;
  std::uint64_t leaks_fixed = 0;
  std::uint64_t kept_clusters = 0;  // of the leaks: a repair kept them, as they may be lost data
  // Host clusters that are used twice, where check found corruption: a repair corrected the
  // refcounts, and could not know which use is right.
  std::uint64_t double_uses = 0;
  finding::Findings findings;
  finding::Findings denied;  // those of the findings that the caller refuses
  std::uint64_t omitted = 0;
  bool is_partial = false;
};

// What a check has found, with the verdict on it.
[[nodiscard]] CheckedImage checked_image(const std::string& filename, const check::Counts& counts,
                                         finding::FindingList findings,
                                         const std::optional<std::string>& failure);

// Whether the caller refuses the image for it.
[[nodiscard]] bool is_denied(const CheckedImage& image, const finding::Finding& finding);

// Whether qemu-img has a message for it.
[[nodiscard]] bool is_known_to_qemu(const finding::Finding& finding);

// How a message speaks of one finding of a run.
enum class Telling { error, repaired, nothing };
using ChooseTelling = std::function<Telling(const finding::Finding& run, std::uint64_t number)>;

// qemu-img's messages, and ours where it has none. `by_runs` puts equal neighbours into one line.
// `choose` says which findings have the text that qemu-img prints for a repaired error, or none.
[[nodiscard]] Result<void> write_check_messages(const CheckedImage& image, bool by_runs,
                                                const Style& style, const Sink& sink,
                                                const ChooseTelling& choose = {});

// The notes, a line each, which the messages leave out: of an image that has no checks they are all
// that there is to say.
[[nodiscard]] Result<void> write_check_notes(const CheckedImage& image, const Style& style,
                                             const Sink& sink);

// A line for each kind of note that a person must see: how many, what it means, what to do. Then
// the clusters that are used twice, by host and guest range, and where their true content may be.
[[nodiscard]] std::string check_hints(const CheckedImage& image);

// qemu-img's summary; "No errors were found" only if we found none either.
[[nodiscard]] Result<void> write_check_text(const CheckedImage& image, const Sink& sink);

// Every finding, a line each.
[[nodiscard]] Result<void> write_check_list(const CheckedImage& image, const Style& style,
                                            const Sink& sink);

// qemu-img's JSON, and what we found under "coldchain", where `add_more` may add members; on one
// line if `is_compact`.
[[nodiscard]] Result<void> write_check_json(
    const CheckedImage& image, bool is_compact, const Sink& sink,
    const std::function<void(JsonWriter&)>& add_more = [](JsonWriter&) {});

// One line for one of many images.
[[nodiscard]] std::string check_line(const CheckedImage& image, const Style& style);

// What CI systems read, image by image; nothing of an image is kept. SARIF 2.1.0 has a result per
// finding, notes included; JUnit a test suite per image, and a failed case per finding that is more
// than a note.
class CiWriter {
 public:
  enum class Form { sarif, junit };
  // `version` is the version of the program, which SARIF records.
  CiWriter(Form form, std::string version, const Sink& sink)
      : form_(form), version_(std::move(version)), sink_(&sink) {}

  [[nodiscard]] Result<void> begin();
  [[nodiscard]] Result<void> add(const CheckedImage& image);
  [[nodiscard]] Result<void> end();

 private:
  [[nodiscard]] Result<void> add_sarif(const CheckedImage& image);
  [[nodiscard]] Result<void> add_junit(const CheckedImage& image);

  Form form_;
  std::string version_;
  const Sink* sink_;
  JsonWriter json_;
  bool has_suites_ = false;
};

}  // namespace coldchain::report
