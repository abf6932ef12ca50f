// SPDX-License-Identifier: MIT
#include <coldchain/base/text.hpp>
#include <coldchain/graph/name.hpp>
#include <coldchain/report/watermark_report.hpp>

#include <fmt/format.h>

namespace coldchain::report {

Result<void> write_watermarks(const Tree& tree, const Style& style, const Sink& sink) {
  using enum Table::Align;
  Table table({"IMAGE", "PHYSICAL", "IMAGE END", "FREE", "GROW TO"},
              {left, right, right, right, right});
  bool has_rows = false;
  for (const TreeLayer& layer : tree) {
    if (!layer.watermark || !layer.watermark->is_short)
      continue;
    has_rows = true;
    const bool has_end = layer.usage && layer.usage->image_end;
    const bool is_bound = has_end && layer.usage->image_end->is_lower_bound;
    const std::uint64_t end = has_end ? layer.usage->image_end->offset.value : 0;
    table.add({to_terminal(layer.node->filename), std::to_string(layer.sizes.physical),
               has_end ? (is_bound ? ">=" : "") + std::to_string(end) : "-",
               has_end ? (is_bound ? "<=" : "") + std::to_string(layer.watermark->free) : "-",
               std::to_string(layer.watermark->target)});
  }
  return has_rows ? sink(table.text(style)) : Result<void>{};
}

Result<void> write_domstats(const std::vector<std::string>& names, const std::vector<Tree>& trees,
                            std::string_view folder, const Sink& sink) {
  std::string out;
  std::size_t block = 0;
  for (std::size_t disk = 0; disk < trees.size(); ++disk) {
    for (std::size_t depth = 0; depth < trees[disk].size(); ++depth, ++block) {
      const TreeLayer& layer = trees[disk][depth];
      const auto add = [&](std::string_view key, std::string_view value) {
        out += fmt::format("block.{}.{}={}\n", block, key, value);
      };
      add("name", to_terminal(names[disk]));
      if (depth != 0)
        add("backingIndex", std::to_string(depth));
      const std::string& path = layer.node->filename;
      if (path.starts_with('/'))
        add("path", to_terminal(path));
      else if (!graph::has_protocol(path))
        add("path", to_terminal(fmt::format("{}/{}", folder, path)));
      if (!layer.node->is_open())
        continue;
      add("allocation", std::to_string(layer.sizes.allocation));
      add("capacity", std::to_string(layer.sizes.capacity));
      add("physical", std::to_string(layer.sizes.physical));
    }
  }
  return sink(fmt::format("block.count={}\n", block) + out);
}

}  // namespace coldchain::report
