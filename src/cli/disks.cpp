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
  app.add_option(
         "--disk", options.file,
         "Read the disks of a machine from its libvirt XML. IMAGE is then a disk ('vda'), a "
         "layer ('vda[1]') or a node ('virtio-disk0[0]'), in quotes")
      .check(not_empty())
      .type_name("FILE");
  app.add_option("--pool", options.pools,
                 "With --disk, the folder of a storage pool; can be given several times")
      .takes_one_word()
      .type_name("NAME=DIR");
  app.add_flag("--renumber", options.renumber,
               "With --disk, count the nodes from 0, whatever numbers the XML gives them");
}

Result<void> check_disk_options(const CommonOptions& common, const DiskOptions& options) {
  if (!options.file && (!options.pools.empty() || options.renumber))
    return fail(ErrorCode::invalid_argument, "--pool and --renumber are for --disk");
  if (options.file && (common.format || common.image_opts))
    return fail(ErrorCode::invalid_argument,
                "-f and --image-opts are for images; the XML has the formats of a disk");
  return {};
}

Result<std::vector<NamedDisk>> read_disks(const DiskOptions& options,
                                          const std::vector<std::string>& words,
                                          const World& world) {
  const Result<std::vector<graph::DomainDisk>> disks = parse_file(*options.file, world);
  if (!disks)
    return fail(with_context(disks.error(), to_terminal(*options.file)));
  std::vector<NamedDisk> named;
  if (words.empty()) {
    for (const graph::DomainDisk& disk : *disks)
      named.push_back({disk.target, disk});
    return named;
  }
  for (const std::string& word : words) {
    const Result<std::size_t> disk = graph::find_disk(*disks, word);
    if (!disk)
      return fail(with_context(disk.error(), to_terminal(*options.file)));
    named.push_back({word, (*disks)[*disk]});
  }
  return named;
}

Result<OpenedDisk> open_disk(const CommonOptions& common, const DiskOptions& options,
                             const NamedDisk& named, World& world) {
  const graph::DomainDisk& disk = named.disk;
  const auto pools = TRY(pools_of(options));
  Result<graph::NameSpec> spec = graph::spec_of(disk, pools);
  if (!spec)
    return fail(with_context(spec.error(), fmt::format("disk '{}'", to_terminal(disk.target))));
  OpenedDisk opened{TRY(open_spec(common, disk.target, std::move(*spec), world)), {}};
  graph::compare_with_headers(*opened.tree.files, *opened.tree.top);
  opened.names =
      graph::layer_names(disk, graph::chain_of(*opened.tree.top).size(), options.renumber);
  const Result<std::size_t> position = graph::find_layer(opened.names, named.word);
  if (!position)
    return fail(with_context(position.error(), to_terminal(*options.file)));
  const graph::LayerName& name = opened.names[*position];
  if (name.index && name.position == named.word)
    world.complain(
        {ErrorCode::unsupported,
         fmt::format("'{}' is a position here; the index of this layer in {} is {}",
                     to_terminal(name.position), to_terminal(*options.file), *name.index),
         0});
  for (std::size_t i = 0; i < *position; ++i) {
    std::unique_ptr<graph::Node> below = std::move(opened.tree.top->children.front());
    opened.tree.top = std::move(below);
  }
  opened.names.erase(opened.names.begin(),
                     opened.names.begin() + static_cast<std::ptrdiff_t>(*position));
  return opened;
}

Result<OpenedDisk> open_operand(const CommonOptions& common, const DiskOptions& options,
                                const std::string& image, World& world) {
  TRY(check_disk_options(common, options));
  if (!options.file)
    return OpenedDisk{TRY(open_tree(common, image, true, world)), {}};
  const std::vector<NamedDisk> named = TRY(read_disks(options, {image}, world));
  return open_disk(common, options, named.front(), world);
}

}  // namespace coldchain::cli
