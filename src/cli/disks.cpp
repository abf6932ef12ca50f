// SPDX-License-Identifier: MIT
#include "disks.hpp"

#include "option_values.hpp"

#include <algorithm>
#include <map>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

Result<std::vector<graph::DomainDisk>> parse_file(const std::string& path, const World& world) {
  const auto files = TRY(world.files({}));
  const std::unique_ptr<io::File> file = TRY(files->open(path));
  if (file->size() > graph::max_xml_bytes)
    return fail(ErrorCode::invalid_argument,
                fmt::format("is no XML of a machine: it has {} bytes", file->size()));
  std::string text(file->size(), '\0');
  TRY(io::read_exactly(*file, {0}, std::as_writable_bytes(std::span(text)), "XML"));
  return graph::parse_domain(text);
}

Result<std::map<std::string, std::string>> pools_of(const DiskOptions& options) {
  std::map<std::string, std::string> pools;
  for (const std::string& pool : options.pools) {
    const std::size_t equals = pool.find('=');
    if (equals == 0 || equals == std::string::npos)
      return fail(ErrorCode::invalid_argument,
                  fmt::format("--pool: {} is not NAME=DIR", quoted_value(pool)));
    pools.insert_or_assign(pool.substr(0, equals), pool.substr(equals + 1));
  }
  return pools;
}

}  // namespace

void add_disk_options(CommandLine app, DiskOptions& options) {
  app.add_option("--disk", options.file,
                 "Read the disks of a machine from its libvirt XML; IMAGE is then the target of a "
                 "disk, as vda, and without it all disks are shown")
      .check(not_empty())
      .type_name("FILE");
  app.add_option("--pool", options.pools,
                 "With --disk, the folder of a storage pool; can be given several times")
      .takes_one_word()
      .type_name("NAME=DIR");
}

Result<std::vector<graph::DomainDisk>> read_disks(const DiskOptions& options,
                                                  const std::vector<std::string>& targets,
                                                  const World& world) {
  Result<std::vector<graph::DomainDisk>> disks = parse_file(*options.file, world);
  if (!disks)
    return fail(with_context(disks.error(), to_terminal(*options.file)));
  if (targets.empty())
    return disks;
  std::vector<graph::DomainDisk> chosen;
  for (const std::string& target : targets) {
    const auto disk =
        std::find_if(disks->begin(), disks->end(),
                     [&](const graph::DomainDisk& other) { return other.target == target; });
    if (disk == disks->end())
      return fail(ErrorCode::not_found,
                  fmt::format("{}: there is no disk '{}'", to_terminal(*options.file),
                              to_terminal(target)));
    chosen.push_back(*disk);
  }
  return chosen;
}

Result<OpenedTree> open_disk(const CommonOptions& common, const DiskOptions& options,
                             const graph::DomainDisk& disk, const World& world) {
  const auto pools = TRY(pools_of(options));
  Result<graph::NameSpec> spec = graph::spec_of(disk, pools);
  if (!spec)
    return fail(with_context(spec.error(), fmt::format("disk '{}'", to_terminal(disk.target))));
  OpenedTree tree = TRY(open_spec(common, disk.target, std::move(*spec), world));
  graph::compare_with_headers(*tree.files, *tree.top);
  return tree;
}

}  // namespace coldchain::cli
