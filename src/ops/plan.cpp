// SPDX-License-Identifier: MIT
#include <coldchain/ops/plan.hpp>

#include <fmt/format.h>

namespace coldchain::ops {

std::string with_option(std::string verb, std::string_view option, bool is_given) {
  return is_given ? fmt::format("{} {}", verb, option) : std::move(verb);
}

bool has_option(std::string_view verb, std::string_view option) {
  return fmt::format("{} ", verb).find(fmt::format(" {} ", option)) != std::string::npos;
}

Compressed compressed_of(std::string_view verb) {
  if (has_option(verb, decompress_option))
    return Compressed::unpack;
  return has_option(verb, recompress_option) ? Compressed::recompress : Compressed::keep;
}

}  // namespace coldchain::ops
