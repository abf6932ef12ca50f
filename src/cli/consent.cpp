// SPDX-License-Identifier: MIT
#include "consent.hpp"

#include "chain_change.hpp"

#include <algorithm>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

bool is_applying(const World& world) {
  return world.agreement && !world.agreement->plan.empty();
}

Result<std::vector<io::FileIdentity>> identities_of(const std::vector<std::string>& images,
                                                    const World& world) {
  const auto files = TRY(world.files({}));
  std::vector<io::FileIdentity> identities;
  for (const std::string& image : images) {
    const auto file = files->open_operand(image);
    if (!file)
      return fail(with_context(file.error(), to_terminal(image)));
    identities.push_back((*file)->status().identity);
  }
  return identities;
}

}  // namespace

void take_consent(const World& world, CommonOptions& common, edit::SideFolders& folders,
                  bool* force, bool* unreadable_are_zeros) {
  if (!is_applying(world))
    return;
  const Consent& consent = world.agreement->consent;
  common.is_of_plan = !consent.format;
  if (!common.image_opts)
    common.format = consent.format;
  common.force_share = false;
  common.policy.allow_probe = consent.allow_probe;
  folders = consent.folders;
  if (force != nullptr)
    *force = consent.force;
  if (unreadable_are_zeros != nullptr)
    *unreadable_are_zeros = consent.unreadable_are_zeros;
}

void take_copy_options(const World& world, CopyOptions& copy) {
  if (!is_applying(world))
    return;
  const Consent& consent = world.agreement->consent;
  copy.shows_progress = copy.shows_progress || consent.shows_progress;
  copy.rate = consent.rate.value_or(copy.rate);
}

Result<void> check_may_write(World& world, const std::vector<const graph::Node*>& written) {
  if (!is_applying(world))
    return {};
  const std::vector<std::string>& given = world.agreement->images;
  const std::vector<io::FileIdentity> allowed = TRY(identities_of(given, world));
  for (const graph::Node* image : written) {
    const io::Location location = TRY(locate(*image));
    const std::string path = location.folder + "/" + location.name;
    const bool is_allowed =
        std::find(allowed.begin(), allowed.end(), image->file->status().identity) != allowed.end();
    if (!given.empty() && !is_allowed)
      return fail(ErrorCode::refused,
                  fmt::format("nothing was changed: the plan would write to {}, which is not among "
                              "the images given to 'coldchain apply'",
                              to_terminal(path)));
    world.err(fmt::format("coldchain: the plan writes to {}\n", to_terminal(path)));
  }
  return {};
}

}  // namespace coldchain::cli
