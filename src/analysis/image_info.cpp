// SPDX-License-Identifier: MIT
#include <coldchain/analysis/image_info.hpp>
#include <coldchain/analysis/refusal.hpp>
#include <coldchain/analysis/usage.hpp>
#include <coldchain/graph/name.hpp>

namespace coldchain::analysis {

namespace {

using finding::Code;

// The value, or the reader's default with a finding in its place.
template <class T>
T value_or_finding(Result<T> result, Code code, finding::Findings& findings) {
  if (result)
    return std::move(*result);
  findings.push_back({code, result.error().message});
  return {};
}

// Whether the file is shorter than what it is said to hold. The refcounts tell without a look at
// all tables.
bool may_be_cut(const qcow2::Image& image) {
  const io::File* data_file = image.data_file();
  if (image.header().has_data_file() && data_file != nullptr &&
      data_file->size() < image.guest_size())
    return true;
  const Result<qcow2::Refcounts> refcounts = qcow2::Refcounts::open(image.file(), image.header());
  const Result<HostOffset> end = refcounts ? refcounts->image_end() : fail(refcounts.error());
  return end && end->value > image.file().size();
}

}  // namespace

ImageInfo image_info(const graph::Node& node) {
  ImageInfo info;
  info.filename = node.filename;
  info.format = node.format;
  info.virtual_size = node.guest_size();
  info.actual_size = node.file->status().allocated;
  info.findings = node.findings;
  const qcow2::Image* image = node.qcow2_image();
  if (image == nullptr)
    return info;
  const qcow2::Header& header = image->header();
  info.header = header;
  if (header.backing_file() && !header.backing_file()->empty()) {
    info.backing_filename = header.backing_file();
    info.full_backing_filename = graph::has_protocol(*header.backing_file())
                                     ? *header.backing_file()
                                     : graph::resolve_path(node.filename, *header.backing_file());
  }
  if (header.unknown_incompatible() != 0)
    return info;  // the tables behind the header may mean something new
  info.snapshots = value_or_finding(qcow2::read_snapshots(image->file(), header),
                                    Code::image_snapshots_unreadable, info.findings);
  // Where they cannot be read, they are refused.
  if (auto bitmaps = qcow2::read_bitmaps(image->file(), header))
    info.bitmaps = std::move(*bitmaps);
  if (may_be_cut(*image)) {
    for (finding::Finding& finding : usage_of(node).findings) {
      if (finding.code == Code::image_data_unreadable)
        info.findings.push_back(std::move(finding));
    }
  }
  if (header.crypt_method == static_cast<std::uint32_t>(qcow2::CryptMethod::luks)) {
    if (Result<qcow2::LuksInfo> luks = qcow2::read_luks(image->file(), header))
      info.luks = std::move(*luks);
  }
  const finding::Findings refusals = refusals_of(*image);
  info.findings.insert(info.findings.end(), refusals.begin(), refusals.end());
  return info;
}

}  // namespace coldchain::analysis
