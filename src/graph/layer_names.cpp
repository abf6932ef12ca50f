// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/text.hpp>
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

std::string_view disk_part(std::string_view word) {
  return word.ends_with(']') ? word.substr(0, word.rfind('[')) : word;
}

Result<std::size_t> find_layer(const DomainDisk& disk, const std::vector<LayerName>& names,
                               std::string_view word) {
  if (word == disk.target)
    return std::size_t{0};
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i].position == word || names[i].node == word)
      return i;
  }
  std::string known = fmt::format("'{}' to '{}'", to_terminal(names.front().position),
                                  to_terminal(names.back().position));
  if (!disk.alias.empty())
    known += fmt::format(", and the nodes '{}[n]'", to_terminal(disk.alias));
  return fail(ErrorCode::not_found,
              fmt::format("there is no layer '{}'; the disk has {}", to_terminal(word), known));
}

}  // namespace coldchain::graph
