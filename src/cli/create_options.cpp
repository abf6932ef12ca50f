// SPDX-License-Identifier: MIT
#include "create_options.hpp"

#include "sizes.hpp"

#include <bit>
#include <functional>
#include <map>
#include <vector>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>
#include <coldchain/qcow2/geometry.hpp>

#include <fmt/format.h>

namespace coldchain::cli {

namespace {

using analysis::NewImage;

struct Assignment {
  std::string name;
  std::string value;
};

std::vector<std::string> split_at_commas(const std::string& text) {
  std::vector<std::string> parts = {""};
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ',') {
      parts.back() += text[i];
    } else if (i + 1 < text.size() && text[i + 1] == ',') {
      parts.back() += text[++i];
    } else {
      parts.emplace_back();
    }
  }
  return parts;
}

// A name alone is switched on.
Assignment assignment(const std::string& part) {
  const std::size_t equals = part.find('=');
  return equals == std::string::npos ? Assignment{part, "on"}
                                     : Assignment{part.substr(0, equals), part.substr(equals + 1)};
}

Error invalid(std::string message) {
  return {ErrorCode::invalid_argument, std::move(message), 0};
}

Result<bool> parse_switch(const Assignment& option) {
  for (const char* on : {"on", "yes", "true", "y"}) {
    if (option.value == on)
      return true;
  }
  for (const char* off : {"off", "no", "false", "n"}) {
    if (option.value == off)
      return false;
  }
  return fail(invalid(fmt::format("Parameter '{}' expects 'on' or 'off'", option.name)));
}

// One of QEMU's preallocation modes: whether data clusters are allocated, too.
Result<bool> parse_preallocation(const std::string& mode) {
  if (mode == "off" || mode == "metadata")
    return false;
  if (mode == "falloc" || mode == "full")
    return true;
  return fail(invalid(fmt::format("invalid parameter value: {}", to_terminal(mode))));
}

Result<unsigned> parse_version(const std::string& level) {
  if (level == "0.10" || level == "v2")
    return 2U;
  if (level == "1.1" || level == "v3")
    return 3U;
  return fail(invalid(fmt::format("Invalid compatibility level: '{}'", to_terminal(level))));
}

using Setter = std::function<Result<void>(NewImage&, const Assignment&)>;

Result<void> ignore(NewImage& /*image*/, const Assignment& /*option*/) {
  return {};
}

Result<void> ignore_switch(NewImage& /*image*/, const Assignment& option) {
  TRY(parse_switch(option));
  return {};
}

Result<void> refuse_encryption(NewImage& /*image*/, const Assignment& option) {
  return fail(ErrorCode::unsupported,
              fmt::format("'{}': no images are encrypted", to_terminal(option.name)));
}

// The source has a size of its own, and without one `--size` must be given.
Result<void> ignore_size(NewImage& /*image*/, const Assignment& option) {
  TRY(parse_size("size", option.value));
  return {};
}

Result<void> set_preallocation(NewImage& image, const Assignment& option) {
  image.is_preallocated = TRY(parse_preallocation(option.value));
  return {};
}

const std::map<std::string, Setter>& raw_setters() {
  static const std::map<std::string, Setter> setters = {{"size", ignore_size},
                                                        {"preallocation", set_preallocation},
                                                        {"extent_size_hint", ignore},
                                                        {"nocow", ignore_switch}};
  return setters;
}

const std::map<std::string, Setter>& qcow2_setters() {
  static const std::map<std::string, Setter> setters = [] {
    std::map<std::string, Setter> all = raw_setters();
    all["compat"] = [](NewImage& image, const Assignment& option) -> Result<void> {
      image.version = TRY(parse_version(option.value));
      return {};
    };
    all["cluster_size"] = [](NewImage& image, const Assignment& option) -> Result<void> {
      image.cluster_size = TRY(parse_size("cluster size", option.value));
      return {};
    };
    all["refcount_bits"] = [](NewImage& image, const Assignment& option) -> Result<void> {
      image.refcount_bits = TRY(parse_size("refcount_bits", option.value));
      return {};
    };
    all["extended_l2"] = [](NewImage& image, const Assignment& option) -> Result<void> {
      image.extended_l2 = TRY(parse_switch(option));
      return {};
    };
    all["backing_file"] = [](NewImage& image, const Assignment&) -> Result<void> {
      image.has_backing_file = true;
      return {};
    };
    for (const char* name : {"backing_fmt", "data_file", "compression_type"})
      all[name] = ignore;
    for (const char* name : {"data_file_raw", "lazy_refcounts"})
      all[name] = ignore_switch;
    for (const char* name : {"encryption", "encrypt.format", "encrypt.key-secret"})
      all[name] = refuse_encryption;
    return all;
  }();
  return setters;
}

Result<void> check(const NewImage& image) {
  const bool is_cluster_size = std::has_single_bit(image.cluster_size) &&
                               image.cluster_size >= 1ULL << qcow2::limits::min_cluster_bits &&
                               image.cluster_size <= 1ULL << qcow2::limits::max_cluster_bits;
  if (!is_cluster_size)
    return fail(invalid("Cluster size must be a power of two between 512 and 2048k"));
  if (image.extended_l2 && image.cluster_size < 16384)
    return fail(invalid(
        "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes"));
  if (!std::has_single_bit(image.refcount_bits) ||
      image.refcount_bits > 1ULL << qcow2::limits::max_refcount_order)
    return fail(invalid("Refcount width must be a power of two and may not exceed 64 bits"));
  if (image.version < 3 && image.refcount_bits != 16)
    return fail(
        invalid("Different refcount widths than 16 bits require compatibility level 1.1 or above "
                "(use compat=1.1 or greater)"));
  return {};
}

}  // namespace

Result<NewImage> parse_create_options(const std::string& format, const std::string& text) {
  const auto& setters = format == "raw" ? raw_setters() : qcow2_setters();
  NewImage image;
  for (const std::string& part : split_at_commas(text)) {
    if (part.empty())
      continue;
    const Assignment option = assignment(part);
    const auto setter = setters.find(option.name);
    if (setter == setters.end())
      return fail(invalid(fmt::format("Invalid parameter '{}'", to_terminal(option.name))));
    TRY(setter->second(image, option));
  }
  TRY(check(image));
  return image;
}

}  // namespace coldchain::cli
