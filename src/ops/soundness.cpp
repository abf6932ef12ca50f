// SPDX-License-Identifier: MIT
#include "soundness.hpp"

#include "image_editor.hpp"

#include <algorithm>
#include <set>

#include <coldchain/base/endian.hpp>
#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/edit/journal.hpp>
#include <coldchain/qcow2/bitmaps.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

namespace {

bool is_sound(const check::CheckResult& checked) {
  return !checked.failure && checked.findings.worst() < finding::Severity::corruption;
}

// Whether the entry that a finding is about is of a compressed cluster.
bool is_of_stream(const finding::Finding& finding) {
  return qcow2::L2Entry(finding.entry).is_compressed();
}

// Sound, but for data that the file has no bytes of.
bool is_only_cut(const check::CheckResult& checked) {
  const finding::Findings& findings = checked.findings.runs();
  return !checked.failure && checked.findings.omitted() == 0 &&
         checked.findings.has(finding::Code::data_past_end) &&
         std::all_of(findings.begin(), findings.end(), [](const finding::Finding& finding) {
           return finding.code == finding::Code::data_past_end ||
                  finding::row(finding.code).severity < finding::Severity::corruption;
         });
}

}  // namespace

Error about(const graph::Layer& layer, Error error) {
  return with_context(std::move(error), to_terminal(layer.node->filename));
}

Result<check::CheckResult> check_metadata(const io::File& file, unsigned workers) {
  return check::check(TRY(qcow2::Image::open_damaged(file)), {.deep = false, .workers = workers});
}

analysis::UnreadableRanges own_unreadable(const check::CheckResult& checked) {
  analysis::UnreadableRanges ranges;
  for (const finding::Finding& finding : checked.findings.runs()) {
    if (finding.code != finding::Code::data_past_end)
      continue;
    analysis::Extent lost;
    lost.guest = finding.guest;
    lost.unreadable = qcow2::Unreadable::past_end;
    ranges.add(std::span(&lost, 1));
  }
  return ranges;
}

Result<void> check_sound(const qcow2::Header& header, const check::CheckResult& checked,
                         bool unreadable_are_zeros) {
  if (checked.is_partial)
    return fail(ErrorCode::refused,
                "has more tables than its file can hold: not all of them were checked");
  const bool is_dirty = header.has_incompatible(qcow2::incompatible::dirty);
  if (!is_dirty && is_only_cut(checked)) {
    if (unreadable_are_zeros)
      return {};
    return fail(ErrorCode::corrupt,
                fmt::format("the file ends inside guest data, at guest offset {:#x}: its missing "
                            "bytes would become zeros; 'coldchain check --list' lists them, and "
                            "--unreadable=zeros takes them as zeros",
                            own_unreadable(checked).ranges().front().guest.begin.value));
  }
  if (is_dirty || !is_sound(checked))
    return fail(ErrorCode::refused,
                "is damaged or was not closed: 'coldchain check' lists the errors, and 'coldchain "
                "check -r all' repairs them");
  return {};
}

Result<void> zero_cut_streams(ImageEditor& editor, const qcow2::Header& header,
                              const check::CheckResult& checked) {
  for (const finding::Finding& finding : checked.findings.runs()) {
    if (finding.code != finding::Code::data_past_end || !is_of_stream(finding))
      continue;
    if (header.version < 3 || header.nb_snapshots != 0)
      return fail(
          ErrorCode::refused,
          fmt::format(
              "the file ends inside the compressed cluster of guest offset {0:#x}. The "
              "cluster would read as other data when the file grows, and {1}. 'qemu-io -c \"write "
              "-z {0:#x} {2}\" FILE' overwrites it with zeros",
              finding.guest.begin.value,
              header.version < 3 ? "version 2 cannot mark zeros"
                                 : "internal snapshots may use it, too",
              finding.guest.size()));
    TRY(editor.set_zero(finding.guest));
  }
  return {};
}

Result<void> check_plan(const check::CheckResult& checked) {
  if (!checked.is_partial && is_sound(checked))
    return {};
  const finding::Findings& findings = checked.findings.runs();
  const auto worst = std::max_element(
      findings.begin(), findings.end(), [](const finding::Finding& a, const finding::Finding& b) {
        return finding::row(a.code).severity < finding::row(b.code).severity;
      });
  return fail(ErrorCode::refused,
              fmt::format("the result would not be sound ({}): this is an error of coldchain. "
                          "Nothing was changed",
                          worst == findings.end() ? "?" : finding::row(worst->code).slug));
}

Result<void> check_kind(const qcow2::Header& header) {
  if (header.crypt_method != 0)
    return fail(ErrorCode::refused,
                "is encrypted: coldchain cannot encrypt the data that it would copy");
  if (header.has_data_file())
    return fail(ErrorCode::refused, "keeps its data in an external data file");
  return {};
}

Result<void> check_is_whole(const raw::Image& image) {
  if (image.host_offset({0}).value != 0 || image.exact_size() != image.file().size())
    return fail(io::window_is_read_only());
  return {};
}

Result<void> check_device(const edit::Transaction& transaction) {
  const io::FileStatus& status = transaction.view().status();
  if (status.kind == io::FileKind::block_device &&
      transaction.size_after() > transaction.size_before())
    return fail(ErrorCode::refused,
                fmt::format("the device has {} bytes and needs {}: make it larger first",
                            transaction.size_before(), transaction.size_after()));
  return {};
}

Result<void> check_readable(const std::vector<graph::Layer>& layers) {
  for (const graph::Layer& layer : layers) {
    if (!layer.mapping)
      continue;
    // Two windows of one file have the same identity and the same host offsets.
    if (layer.node->window)
      return fail(about(layer, io::window_is_read_only()));
    if (const Result<void> done = layer.qcow2().check_readable(); !done)
      return fail(about(layer, done.error()));
  }
  return {};
}

Result<std::vector<qcow2::Snapshot>> snapshots_of(const qcow2::Image& image) {
  auto snapshots = TRY(qcow2::read_snapshots(image.file(), image.header()));
  std::set<std::string> ids;
  // Each of them is read. Tables that lie in holes, or in one place, need no storage for that.
  std::uint64_t l1_bytes = 0;
  const std::uint64_t most_l1_bytes =
      edit::Transaction::least_limit + edit::storage_to_expect(image.file());
  for (const qcow2::Snapshot& snapshot : snapshots) {
    l1_bytes += std::uint64_t{snapshot.l1_size} * sizeof(be64);
    if (l1_bytes > most_l1_bytes)
      return fail(ErrorCode::too_large,
                  fmt::format("the L1 tables of its internal snapshots take more than {} bytes, "
                              "for which its file has no storage",
                              most_l1_bytes));
    if (!ids.insert(snapshot.id).second)
      return fail(ErrorCode::refused,
                  fmt::format("has two internal snapshots with the ID '{}': 'qemu-img snapshot -d' "
                              "deletes one by its name, '{}'",
                              to_terminal(snapshot.id), to_terminal(snapshot.name)));
  }
  return snapshots;
}

void raise_limit(edit::Transaction& transaction, const graph::Chain& chain) {
  for (const graph::Layer& layer : chain.layers()) {
    for (const io::File* file : {layer.node->file.get(), layer.node->data_file.get()}) {
      if (file != nullptr)
        transaction.raise_limit(*file);
    }
  }
}

std::vector<std::string> bitmaps_of(const graph::Chain& chain, std::size_t begin, std::size_t end,
                                    const std::vector<std::string>& without) {
  std::vector<std::string> names;
  for (std::size_t i = begin; i < end; ++i) {
    const graph::Layer& layer = chain.layers()[i];
    if (!layer.mapping)
      continue;
    const auto bitmaps = qcow2::read_bitmaps(layer.qcow2().file(), layer.qcow2().header());
    if (!bitmaps) {
      names.push_back(fmt::format("(cannot be read) in {}", layer.node->filename));
      continue;
    }
    for (const qcow2::Bitmap& bitmap : *bitmaps) {
      if (std::find(without.begin(), without.end(), bitmap.name) == without.end())
        names.push_back(fmt::format("{} in {}", bitmap.name, layer.node->filename));
    }
  }
  return names;
}

LayerStorage storage_of(const graph::Node& layer) {
  const std::uint64_t data = layer.data_file ? layer.data_file->status().allocated : 0;
  return {layer.filename, layer.file->status().allocated + data};
}

Result<void> fill_cost(Cost& cost, const edit::Transaction& transaction,
                       const check::CheckResult& before, std::uint64_t end_after) {
  cost.metadata_bytes = transaction.changed_bytes();
  cost.image_end_before = before.counts.image_end_offset;
  cost.image_end_after = end_after;
  cost.file_size_before = transaction.size_before();
  cost.file_size_after = transaction.size_after();
  cost.side_file_bytes = TRY(edit::Journal::size_of(transaction));
  return {};
}

}  // namespace coldchain::ops
