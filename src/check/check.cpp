// SPDX-License-Identifier: MIT
#include "survey.hpp"

#include <utility>

#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/extensions.hpp>
#include <coldchain/qcow2/snapshots.hpp>

#include <fmt/format.h>

namespace coldchain::check {

namespace {

void check_data_file(Survey& survey) {
  const io::File* data_file = survey.image.data_file();
  if (!survey.image.header().has_data_file() || data_file == nullptr)
    return;
  if (data_file->size() < survey.image.guest_size())
    survey.result.findings.add({.code = finding::Code::data_file_too_short,
                                .detail = fmt::format("{} bytes, for a disk of {}",
                                                      data_file->size(), survey.image.guest_size()),
                                .structure = finding::Structure::data_file});
}

}  // namespace

Result<CheckResult> check(const qcow2::Image& image, const CheckOptions& options) {
  if (image.header().unknown_incompatible() != 0)
    return fail(ErrorCode::unsupported, qcow2::unsupported_features(image.header()));
  Survey survey(image, TRY(StoredRefcounts::read(image.file(), image.header(), options.workers)),
                options);
  const std::vector<qcow2::Snapshot> snapshots = check_snapshot_table(survey);
  check_header(survey);
  check_mappings(survey, snapshots);
  check_encryption_header(survey);
  check_bitmaps(survey);
  check_refcount_blocks(survey);
  compare_refcounts(survey);
  survey.result.findings.add_all(std::exchange(survey.copied, {}));
  survey.result.counts.corruptions += survey.copied_count;
  check_data_file(survey);
  check_owners(survey, !snapshots.empty());
  name_shared_users(survey, !snapshots.empty());
  find_orphan_tables(survey);
  find_doubts(survey);
  check_bounds(survey);
  return std::move(survey.result);
}

}  // namespace coldchain::check
