// SPDX-License-Identifier: MIT
// deps: the images whose chain goes through an image.
#include "app.hpp"
#include "common_options.hpp"
#include "host_path.hpp"
#include "option_values.hpp"
#include "verb.hpp"

#include <filesystem>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/report/deps_report.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

struct DepsOptions {
  CommonOptions common;
  std::vector<std::string> scan;
  std::string image;
};

void options(CommandLine app, DepsOptions& deps) {
  add_common_options(app, deps.common);
  app.add_option(
         "--scan", deps.scan,
         "Search DIR and all folders below it; can be given several times. Without it, only "
         "the folder of IMAGE is searched")
      .check(not_empty())
      .type_name("DIR");
  app.add_option("IMAGE", deps.image, "Path or block device").required().type_name("");
  app.footer("Example: coldchain deps --scan /var/lib/libvirt/images template.qcow2");
}

// As raw: only the file matters, whatever lies in it, and it may be in use.
Result<OpenedTree> open_as_file(const DepsOptions& deps, const World& world) {
  CommonOptions common = deps.common;
  if (!common.image_opts)
    common.format = "raw";
  common.force_share = true;
  return open_tree(common, deps.image, false, world);
}

Result<ExitStatus> run_verb(const DepsOptions& deps, World& world) {
  TRY(check_no_secrets(deps.common));
  if (deps.common.no_follow)
    return fail(ErrorCode::invalid_argument,
                "'--no-follow' leaves no link to search; run 'deps' without it");
  const OpenedTree tree = TRY(open_as_file(deps, world));
  report::DepsAnswer answer{.image = deps.image, .searched = deps.scan};
  if (answer.searched.empty()) {
    const std::filesystem::path folder = std::filesystem::path(host_path(*tree.top)).parent_path();
    answer.searched.push_back(folder.empty() ? "." : folder.string());
    answer.is_own_folder = true;
  }
  const io::OpenPolicy policy = policy_of(deps.common);
  answer.dependents = TRY(graph::find_dependents(
      *tree.files, policy,
      {.directories = answer.searched, .image = tree.top->file->status().identity},
      world.workers()));
  TRY(deps.common.json() ? report::write_deps_json(answer, world.sink())
                         : report::write_deps_text(answer, world.sink()));
  if (!answer.dependents.images.empty())
    return has_dependents;
  return answer.dependents.is_complete() ? success : failure;
}

}  // namespace

void register_deps(CommandLine app, World& world, int& status) {
  add_looking_verb<DepsOptions>(app, "deps", "List the images whose chain goes through an image",
                                world, status, options, run_verb);
}

}  // namespace coldchain::cli
