// SPDX-License-Identifier: MIT
#include "doubts_report.hpp"

#include <algorithm>
#include <array>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/tables.hpp>
#include <coldchain/report/check_report.hpp>
#include <coldchain/report/findings_report.hpp>
#include <coldchain/report/json_writer.hpp>

#include <fmt/format.h>

namespace coldchain::report {

namespace {

using finding::Code;
using finding::Finding;
using finding::Severity;

// The message of one finding of a run; empty where qemu-img has none.
std::string qemu_message(const Finding& finding, std::uint64_t index, std::uint64_t entry,
                         bool is_repaired = false) {
  const std::string_view error = is_repaired ? "Repairing" : "ERROR";
  const std::uint64_t offset = entry & qcow2::offset_mask;
  switch (finding.code) {
    case Code::snapshot_entry_incomplete:
      return fmt::format("ERROR snapshot table entry {} is incomplete", index);
    case Code::snapshot_with_data_file:
      return fmt::format("ERROR {} snapshots in image with data file", finding.found);
    case Code::snapshot_l1_unaligned:
      return fmt::format(
          "ERROR snapshot {} l1_offset={:#x}: L1 table is not cluster aligned; snapshot table "
          "entry "
          "corrupted",
          to_terminal(finding.detail), entry);
    case Code::snapshot_l1_too_large:
      return fmt::format(
          "ERROR snapshot {} l1_size={:#x}: L1 table is too large; snapshot table entry corrupted",
          to_terminal(finding.detail), entry);
    case Code::l1_entry_reserved:
      return fmt::format("ERROR found L1 entry with reserved bits set: {:x}", entry);
    case Code::l2_table_unaligned:
      return fmt::format("ERROR l2_offset={:x}: Table is not cluster aligned; L1 entry corrupted",
                         offset);
    case Code::l2_entry_reserved:
      return fmt::format("ERROR found l2 entry with reserved bits set: {:x}", entry);
    case Code::compressed_copied:
      return fmt::format(
          "ERROR: coffset=0x{:x}: copied flag must never be set for compressed clusters",
          finding.found);
    case Code::compressed_with_data_file:
      return fmt::format("ERROR compressed cluster {} with data file, entry=0x{:x}", finding.found,
                         entry & ~qcow2::copied_flag);
    case Code::compressed_with_subclusters:
      return fmt::format(
          "ERROR compressed cluster {} with non-zero subcluster allocation bitmap, entry=0x{:x}",
          finding.found, entry & ~qcow2::copied_flag);
    case Code::subclusters_contradict:
      return fmt::format(
          "ERROR offset={:x}: Allocated cluster has corrupted subcluster allocation bitmap",
          offset);
    case Code::subclusters_without_cluster:
      return "ERROR: Unallocated cluster has non-zero subcluster allocation map";
    case Code::zero_cluster_unaligned:
      return fmt::format(
          "ERROR offset={:x}: Preallocated cluster is not properly aligned; L2 entry corrupted.",
          offset);
    case Code::data_cluster_unaligned:
      return fmt::format(
          "ERROR offset={:x}: Data cluster is not properly aligned; L2 entry corrupted.", offset);
    case Code::reference_past_end:
      return fmt::format(
          "ERROR: counting reference for region exceeding the end of the file by one cluster or "
          "more: offset 0x{:x} size 0x{:x}",
          entry, finding.expected);
    case Code::refcount_overflow:
      return fmt::format(
          "ERROR: overflow cluster offset=0x{:x}\nUse qemu-img amend to increase the refcount "
          "entry "
          "width or qemu-img convert to create a clean copy if the image cannot be opened for "
          "writing",
          finding.host.begin.value);
    case Code::refcount_table_entry_reserved:
      return fmt::format("ERROR refcount table entry {} has reserved bits set", index);
    case Code::refcount_block_unaligned:
      return fmt::format(
          "ERROR refcount block {} is not cluster aligned; refcount table entry corrupted", index);
    case Code::refcount_block_past_end:
      return fmt::format("{} refcount block {} is outside image", error, index);
    case Code::refcount_block_shared:
      return fmt::format("ERROR refcount block {} refcount={}", index, finding.found);
    case Code::refcount_unreadable:
      return fmt::format("Can't get refcount for cluster {}: Input/output error", index);
    case Code::refcount_too_low:
      return fmt::format("{} cluster {} refcount={} reference={}", error, index, finding.found,
                         finding.expected);
    case Code::cluster_leaked:
      return fmt::format("{} cluster {} refcount={} reference={}",
                         is_repaired ? "Repairing" : "Leaked", index, finding.found,
                         finding.expected);
    case Code::l1_entry_copied_wrong:
      return fmt::format("{} OFLAG_COPIED L2 cluster: l1_index={} l1_entry={:x} refcount={}", error,
                         index, entry, finding.found);
    case Code::l2_entry_copied_wrong:
      return fmt::format("{} OFLAG_COPIED data cluster: l2_entry={:x} refcount={}", error, entry,
                         finding.found);
    default:
      return "";
  }
}

std::uint64_t count_ours(const CheckedImage& image) {
  std::uint64_t count = 0;
  for (const Finding& finding : image.findings) {
    if (!is_known_to_qemu(finding) && finding::row(finding.code).severity > Severity::note)
      count += finding.count;
  }
  return count;
}

std::vector<std::string_view> denied_names(const CheckedImage& image) {
  std::vector<std::string_view> names;
  for (const Finding& finding : image.denied)
    names.push_back(finding::row(finding.code).slug);
  return names;
}

// Whether something that describes guest data is damaged or lost: then what nothing refers to may
// be that data.
bool may_hold_lost_data(const CheckedImage& image) {
  return image.kept_clusters != 0 ||
         std::any_of(image.findings.begin(), image.findings.end(), [](const Finding& finding) {
           const auto family = static_cast<unsigned>(finding.code) / 100;
           const bool is_flag = finding.code == Code::l1_entry_copied_wrong ||
                                finding.code == Code::l2_entry_copied_wrong;
           const bool is_of_mapping = family >= 32 && family <= 34 && !is_flag;
           constexpr std::array signs = {Code::orphan_table,        Code::lost_snapshot,
                                         Code::l2_table_empty,      Code::l2_table_part_empty,
                                         Code::shared_cluster_user, Code::cluster_used_twice};
           return std::find(signs.begin(), signs.end(), finding.code) != signs.end() ||
                  (is_of_mapping && finding::row(finding.code).severity >= Severity::corruption);
         });
}

double percent(std::uint64_t part, std::uint64_t whole) {
  return static_cast<double>(part) * 100.0 / static_cast<double>(whole);
}

}  // namespace

CheckedImage checked_image(const std::string& filename, const check::Counts& counts,
                           finding::FindingList findings,
                           const std::optional<std::string>& failure) {
  CheckedImage image;
  image.filename = filename;
  image.format = "qcow2";
  image.counts = counts;
  image.omitted = findings.omitted();
  if (counts.corruptions != 0 || findings.worst() >= Severity::corruption)
    image.verdict = Verdict::corrupt;
  else if (counts.leaks != 0 || findings.worst() == Severity::leak)
    image.verdict = Verdict::leaks;
  image.findings = std::move(findings).take_runs();
  if (failure)
    image.failures.push_back("Check failed: " + *failure);
  else if (counts.check_errors != 0)
    image.failures.push_back("Check failed");
  if (!image.failures.empty())
    image.verdict = Verdict::failed;
  return image;
}

bool is_denied(const CheckedImage& image, const Finding& finding) {
  return std::any_of(image.denied.begin(), image.denied.end(),
                     [&](const Finding& denied) { return denied.code == finding.code; });
}

bool is_known_to_qemu(const Finding& finding) {
  return !qemu_message(finding, finding.index, finding.entry).empty();
}

Result<void> write_check_messages(const CheckedImage& image, bool by_runs, const Style& style,
                                  const Sink& sink, const ChooseTelling& choose) {
  // Nobody reads more, and a hostile image could ask for any number.
  constexpr std::uint64_t most_messages = 1 << 20;
  std::uint64_t lines = 0;
  std::uint64_t omitted = image.omitted;
  std::string out;
  const auto add = [&](const std::string& line) -> Result<void> {
    ++lines;
    out += line + "\n";
    return out.size() < flush_at ? Result<void>{} : sink(std::exchange(out, {}));
  };
  for (const Finding& finding : image.findings) {
    const bool is_ours = !is_known_to_qemu(finding);
    if (is_ours && finding::row(finding.code).severity == Severity::note)
      continue;
    const auto telling = [&](std::uint64_t number) {
      return choose ? choose(finding, number) : Telling::error;
    };
    if (is_ours || (by_runs && finding.count > 1)) {
      if (telling(0) != Telling::nothing)
        TRY(add(finding_line(style, finding)));
      continue;
    }
    const std::uint64_t told =
        std::min(finding.count, most_messages - std::min(lines, most_messages));
    omitted += finding.count - told;
    for (std::uint64_t i = 0; i < told; ++i) {
      if (const Telling how = telling(i); how != Telling::nothing)
        TRY(add(qemu_message(finding, finding.index + i, finding.entry + i * finding.entry_step,
                             how == Telling::repaired)));
    }
  }
  for (const Finding& finding : image.denied)
    TRY(add("denied " + finding_line(style, finding)));
  if (omitted != 0)
    TRY(add(fmt::format("{} more findings are counted, but not listed", omitted)));
  return out.empty() ? Result<void>{} : sink(out);
}

Result<void> write_check_notes(const CheckedImage& image, const Style& style, const Sink& sink) {
  std::string out;
  for (const Finding& finding : image.findings) {
    if (finding::row(finding.code).severity == Severity::note)
      out += finding_line(style, finding) + "\n";
  }
  return out.empty() ? Result<void>{} : sink(out);
}

std::string check_hints(const CheckedImage& image) {
  std::string out;
  for (const Code code :
       {Code::orphan_table, Code::lost_snapshot, Code::l2_table_empty, Code::l2_table_part_empty,
        Code::bitmap_in_use, Code::mapped_past_disk, Code::zero_tail, Code::image_behind_end}) {
    std::uint64_t count = 0;
    std::string detail;  // of the first
    for (const Finding& finding : image.findings) {
      if (finding.code == code && count == 0 && !finding.detail.empty())
        detail = fmt::format(" ({})", to_terminal(finding.detail));
      count += finding.code == code ? finding.count : 0;
    }
    const finding::Row& row = finding::row(code);
    if (count != 0)
      out += fmt::format("{} {}{}: {} {}\n", count, row.slug, detail, row.meaning, row.advice);
  }
  return out + shared_clusters_text(image.findings);
}

Result<void> write_check_text(const CheckedImage& image, const Sink& sink) {
  const check::Counts& counts = image.counts;
  const std::uint64_t ours = count_ours(image);
  std::string out;
  if (counts.corruptions == 0 && counts.leaks == 0 && counts.check_errors == 0 && ours == 0 &&
      image.denied.empty() && image.double_uses == 0)
    out += image.failures.empty()
               ? "No errors were found on the image.\n"
               : "No errors were found in what could be checked; see the messages.\n";
  if (counts.corruptions != 0)
    out += fmt::format(
        "\n{} errors were found on the image.\nData may be corrupted, or further writes to the "
        "image may corrupt it.\n",
        counts.corruptions);
  if (counts.leaks != 0)
    out += fmt::format(
        "\n{} leaked clusters were found on the image.\n{}\n", counts.leaks,
        may_hold_lost_data(image)
            ? "They may hold lost data: 'coldchain repair --rebuild-mapping --dry-run' looks for "
              "the tables that describe them."
            : "This means waste of disk space, but no harm to data.");
  if (counts.check_errors != 0)
    out +=
        fmt::format("\n{} internal errors have occurred during the check.\n", counts.check_errors);
  if (ours != 0)
    out +=
        fmt::format("\n{} findings that qemu-img does not look for; '--list' shows them.\n", ours);
  if (image.double_uses != 0)
    out += fmt::format(
        "\n{} host clusters are still used twice: a person must decide which use is right.\n",
        image.double_uses);
  if (!image.denied.empty())
    out += fmt::format("\nThe image is refused: {}.\n", fmt::join(denied_names(image), ", "));
  if (counts.total_clusters != 0 && counts.allocated_clusters != 0)
    out +=
        fmt::format("{}/{} = {:.2f}% allocated, {:.2f}% fragmented, {:.2f}% compressed clusters\n",
                    counts.allocated_clusters, counts.total_clusters,
                    percent(counts.allocated_clusters, counts.total_clusters),
                    percent(counts.fragmented_clusters, counts.allocated_clusters),
                    percent(counts.compressed_clusters, counts.allocated_clusters));
  if (counts.image_end_offset != 0)
    out += fmt::format("Image end offset: {}\n", counts.image_end_offset);
  return sink(out);
}

Result<void> write_check_list(const CheckedImage& image, const Style& style, const Sink& sink) {
  std::string out;
  for (const Finding& finding : image.findings) {
    const finding::Row& row = finding::row(finding.code);
    out += fmt::format("{} {}", static_cast<unsigned>(finding.code), finding_line(style, finding));
    if (row.repaired_by != finding::Tier::none)
      out += fmt::format(" [-r {}]", repair_text(row));
    out += "\n";
    if (out.size() >= flush_at)
      TRY(sink(std::exchange(out, {})));
  }
  return out.empty() ? Result<void>{} : sink(out);
}

namespace {

// A document without its layout. No string of ours holds a line break: they are escaped.
std::string on_one_line(std::string_view json) {
  std::string out;
  for (std::size_t i = 0; i < json.size(); ++i) {
    if (json[i] != '\n')
      out += json[i];
    else
      i = std::min(json.find_first_not_of(' ', i + 1), json.size()) - 1;
  }
  return out;
}

}  // namespace

Result<void> write_check_json(const CheckedImage& image, bool is_compact, const Sink& sink,
                              const std::function<void(JsonWriter&)>& add_more) {
  const check::Counts& counts = image.counts;
  JsonWriter json;
  json.begin_object();
  const auto optional = [&](const char* name, std::uint64_t value) {
    if (value != 0)
      json.member(name, value);
  };
  optional("image-end-offset", counts.image_end_offset);
  optional("compressed-clusters", counts.compressed_clusters);
  optional("total-clusters", counts.total_clusters);
  optional("corruptions-fixed", image.corruptions_fixed);
  optional("corruptions", counts.corruptions);
  json.member("check-errors", counts.check_errors);
  optional("leaks-fixed", image.leaks_fixed);
  optional("leaks", counts.leaks);
  optional("allocated-clusters", counts.allocated_clusters);
  json.name_member("filename", image.filename);
  if (!image.format.empty())
    json.member("format", image.format);
  optional("fragmented-clusters", counts.fragmented_clusters);
  json.key("coldchain")
      .begin_object()
      .member("verdict", to_string(image.verdict))
      .member("partial", image.is_partial)
      .member("omitted", image.omitted);
  json.key("denied").begin_array();
  for (const std::string_view name : denied_names(image))
    json.value(name);
  json.end_array();
  json.key("failures").begin_array();
  for (const std::string& failure : image.failures)
    json.value(failure);
  json.end_array();
  add_more(json);
  // There may be very many: they are written as they come.
  const Sink piece = [&](std::string_view text) {
    return sink(is_compact ? on_one_line(text) : text);
  };
  json.key("findings").begin_array();
  for (const Finding& finding : image.findings) {
    write_finding(json, finding);
    if (json.size() >= flush_at)
      TRY(piece(json.take()));
  }
  json.end_array().end_object().end_object();
  TRY(piece(json.take()));
  return sink("\n");
}

std::string_view to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::clean:
      return "clean";
    case Verdict::no_checks:
      return "no checks";
    case Verdict::leaks:
      return "leaks";
    case Verdict::corrupt:
      return "corrupt";
    case Verdict::failed:
      return "failed";
  }
  return "";
}

std::string check_line(const CheckedImage& image, const Style& style) {
  const Style::Ink ink = image.verdict < Verdict::leaks ? Style::Ink::plain : Style::Ink::red;
  std::string line = style.paint(ink, fmt::format("{:<10}", to_string(image.verdict)));
  line += fmt::format("{:>10} errors {:>10} leaks {:>6} others  {}", image.counts.corruptions,
                      image.counts.leaks, count_ours(image), to_terminal(image.filename));
  for (const Finding& finding : image.denied)
    line += fmt::format(": denied {}", finding::row(finding.code).slug);
  for (const Finding& finding : image.findings) {
    if (image.verdict == Verdict::no_checks)
      line += fmt::format(": {}", finding::row(finding.code).slug);
  }
  for (const std::string& failure : image.failures)
    line += ": " + to_terminal(failure);
  return line + "\n";
}

}  // namespace coldchain::report
