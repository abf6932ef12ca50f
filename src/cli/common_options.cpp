// SPDX-License-Identifier: MIT
#include "common_options.hpp"

#include "option_values.hpp"

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/report/unreadable_report.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

CommonOptions options_of_change() {
  CommonOptions options;
  options.policy.steady_holes = true;
  return options;
}

void add_common_options(CommandLine app, CommonOptions& options) {
  app.add_option("-f,--format", options.format, "Format of the image; probed if not given")
      .type_name("FMT");
  app.add_flag("-U,--force-share", options.force_share,
               "Read the image even if another process writes to it");
  app.add_flag("--image-opts", options.image_opts,
               "IMAGE is QEMU's key=value form: driver=qcow2,file.filename=PATH");
  app.add_option("--object", options.object, "Not supported: no secrets are handled")
      .type_name("DEFINITION");
  app.add_option("--output", options.output, "human or json")
      .check(one_of({"human", "json"}))
      .type_name("FORM");
  app.add_option("--color", options.color, "auto, always or never")
      .check(one_of({"auto", "always", "never"}))
      .type_name("WHEN");
  app.add_option(
         "--probe", options.probe,
         "Rule for a top image without -f: qemu, or libvirt (raw if it names a backing file)")
      .check(one_of({"qemu", "libvirt"}))
      .type_name("RULE");
  app.add_option("--root", options.policy.root, "Open nothing outside DIR")
      .check(not_empty())
      .type_name("DIR");
  app.add_option("--sysroot", options.policy.sysroot, "Read every name inside DIR, as if it were /")
      .check(not_empty())
      .type_name("DIR");
  app.add_flag("--no-follow", options.no_follow,
               "Open only the named file, no backing file and no data file");
  app.add_flag("--allow-probe", options.policy.allow_probe,
               "Follow the links of an image whose format its overlay does not record");
}

io::OpenPolicy policy_of(const CommonOptions& options) {
  io::OpenPolicy policy = options.policy;
  policy.follow = !options.no_follow;
  policy.test_locks = !options.force_share;
  return policy;
}

Result<void> check_no_secrets(const CommonOptions& options) {
  if (options.object)
    return fail(
        ErrorCode::unsupported,
        "--object is not supported: coldchain handles no secrets and reads no encrypted data");
  return {};
}

namespace {

// A backing or data file that cannot be opened is a gap of the tree. Where --evidence refuses it,
// the whole tree is refused: nobody asked for an answer without that file.
Result<void> check_evidence_of(const CommonOptions& options, const OpenedTree& tree) {
  if (!options.access_times)
    return {};
  for (const graph::Node* node : graph::chain_of(*tree.top)) {
    for (const std::string& name : {node->filename, node->data_filename}) {
      if (const auto refusal = options.access_times->refusal_of(tree.files->operand_of(name)))
        return fail(*refusal);
    }
  }
  return {};
}

}  // namespace

namespace {

graph::OpenRequest open_request(const CommonOptions& options, const std::string& image,
                                bool follow_links, graph::OpenFor purpose) {
  graph::OpenRequest request;
  request.name = image;
  request.is_path = options.is_path;
  request.format = options.format;
  request.is_image_opts = options.image_opts;
  request.probe_rule =
      options.probe == "libvirt" ? graph::ProbeRule::libvirt : graph::ProbeRule::qemu;
  request.follow_links = follow_links;
  request.purpose = purpose;
  return request;
}

Result<OpenedTree> opened_tree(const CommonOptions& options, const std::string& image,
                               std::unique_ptr<io::FileSource> files,
                               Result<std::unique_ptr<graph::Node>> top) {
  if (!top) {
    Error error = with_context(top.error(), fmt::format("Could not open '{}'", to_terminal(image)));
    if (error.code == ErrorCode::locked)
      error.message +=
          fmt::format("\nIs another process using the image [{}]?", to_terminal(image));
    return fail(std::move(error));
  }
  OpenedTree tree{std::move(files), std::move(*top)};
  TRY(check_evidence_of(options, tree));
  return tree;
}

}  // namespace

Result<OpenedTree> open_tree(const CommonOptions& options, const std::string& image,
                             bool follow_links, const World& world, graph::OpenFor purpose) {
  TRY(check_no_secrets(options));
  if (options.image_opts && options.format)
    return fail(ErrorCode::invalid_argument, "--image-opts and -f exclude each other");
  const io::OpenPolicy policy = policy_of(options);
  auto files = TRY(world.files(policy));
  auto top = graph::open(*files, policy, open_request(options, image, follow_links, purpose));
  return opened_tree(options, image, std::move(files), std::move(top));
}

Result<OpenedTree> open_spec(const CommonOptions& options, const std::string& image,
                             graph::NameSpec spec, const World& world) {
  TRY(check_no_secrets(options));
  const io::OpenPolicy policy = policy_of(options);
  auto files = TRY(world.files(policy));
  auto top = graph::open_spec(*files, policy, std::move(spec),
                              open_request(options, image, true, graph::OpenFor::reading));
  return opened_tree(options, image, std::move(files), std::move(top));
}

void add_evidence_option(CommandLine app, CommonOptions& options,
                         const std::shared_ptr<AccessTimes>& access_times) {
  options.access_times = access_times;
  options.policy.access_time_guard = [access_times](const std::string& path) {
    return access_times->accept_change(path);
  };
  app.add_flag("--evidence", access_times->is_evidence,
               "Read no file or folder whose access time that would change");
  if (std::optional<Option> quiet = app.find_option("-q"))
    quiet->each([access_times](const std::string&) { access_times->is_quiet = true; });
}

Result<void> check_evidence(const CommonOptions& options) {
  const auto refusal = options.access_times ? options.access_times->refusal() : std::nullopt;
  return refusal ? fail(*refusal) : Result<void>{};
}

void add_unreadable_option(CommandLine app, bool& unreadable_are_zeros) {
  app.add_option(
         "--unreadable",
         [&unreadable_are_zeros](const std::string& rule) {
           unreadable_are_zeros = rule == "zeros";
         },
         "Data that cannot be read: refuse, or take it as zeros and list it")
      .check(one_of({"refuse", "zeros"}))
      .type_name("refuse|zeros");
}

void complain_of_unreadable(const graph::Chain& chain, const analysis::UnreadableRanges& unreadable,
                            World& world) {
  for (const std::string& line : report::unreadable_lines(chain, unreadable))
    world.complain({ErrorCode::corrupt, line, 0});
}

}  // namespace coldchain::cli
