// SPDX-License-Identifier: MIT
#include <algorithm>
#include <iterator>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/graph/layer_names.hpp>

#include <fmt/format.h>

namespace coldchain::graph {

namespace {

// The numbers of the nodes, the top first.
std::vector<std::uint64_t> node_numbers(const DomainDisk& disk, std::size_t layers, bool renumber) {
  std::vector<std::optional<std::uint32_t>> given(layers);
  std::uint64_t next = 0;  // a number is never used again
  for (std::size_t i = 0; !renumber && i < std::min(layers, disk.layers.size()); ++i) {
    given[i] = disk.layers[i].node;
    if (given[i])
      next = std::max<std::uint64_t>(next, std::uint64_t{*given[i]} + 1);
  }
  std::vector<std::uint64_t> numbers(layers);
  for (std::size_t i = layers; i-- > 0;)
    numbers[i] = given[i] ? *given[i] : next++;
  return numbers;
}

// The index of the one item that `has_name`; nothing if there is none.
template <typename Item, typename HasName>
Result<std::optional<std::size_t>> only(const std::vector<Item>& items, std::string_view word,
                                        const HasName& has_name) {
  const auto first = std::find_if(items.begin(), items.end(), has_name);
  if (first == items.end())
    return std::nullopt;
  if (std::find_if(std::next(first), items.end(), has_name) != items.end())
    return fail(ErrorCode::invalid_argument,
                fmt::format("the name '{}' is given twice in the XML", to_terminal(word)));
  return static_cast<std::size_t>(first - items.begin());
}

}  // namespace

std::vector<LayerName> layer_names(const DomainDisk& disk, std::size_t layers, bool renumber) {
  const std::vector<std::uint64_t> nodes = node_numbers(disk, layers, renumber);
  std::vector<LayerName> names(layers);
  for (std::size_t i = 0; i < layers; ++i) {
    names[i].position = fmt::format("{}[{}]", disk.target, i);
    if (!disk.alias.empty())
      names[i].node = fmt::format("{}[{}]", disk.alias, nodes[i]);
    if (i < disk.layers.size() && disk.layers[i].index != i)
      names[i].index = disk.layers[i].index;
  }
  return names;
}

Result<std::size_t> find_layer(const std::vector<LayerName>& names, std::string_view word) {
  const std::string top = fmt::format("{}[0]", word);
  if (const auto found =
          TRY(only(names, word, [&](const auto& name) { return name.position == word; })))
    return *found;
  if (const auto found =
          TRY(only(names, word, [&](const auto& name) { return name.position == top; })))
    return *found;
  if (const auto found =
          TRY(only(names, word, [&](const auto& name) { return name.node == word; })))
    return *found;
  std::string known = fmt::format("'{}' to '{}'", to_terminal(names.front().position),
                                  to_terminal(names.back().position));
  for (const LayerName& name : names) {
    if (!name.node.empty())
      known += fmt::format(", node '{}'", to_terminal(name.node));
    if (name.index)
      known += fmt::format(", index {} for '{}'", *name.index, to_terminal(name.position));
  }
  return fail(ErrorCode::not_found,
              fmt::format("there is no layer '{}'; the disk has {}", to_terminal(word), known));
}

Result<std::size_t> find_disk(const std::vector<DomainDisk>& disks, std::string_view word) {
  const std::string_view name = word.ends_with(']') ? word.substr(0, word.rfind('[')) : word;
  const bool has_number = name.size() != word.size();
  if (const auto found =
          TRY(only(disks, word, [&](const auto& disk) { return disk.target == word; })))
    return *found;
  if (const auto found =
          TRY(only(disks, word, [&](const auto& disk) { return disk.target == name; })))
    return *found;
  if (const auto found = TRY(
          only(disks, word, [&](const auto& disk) { return has_number && disk.alias == name; })))
    return *found;
  return fail(ErrorCode::not_found, fmt::format("there is no disk '{}'", to_terminal(name)));
}

}  // namespace coldchain::graph
