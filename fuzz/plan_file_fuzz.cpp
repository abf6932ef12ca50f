// SPDX-License-Identifier: MIT
// A plan is read or refused; what is read agrees with itself, and with no other.
#include "agreement.hpp"
#include "fuzz_files.hpp"

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace coldchain;
  const std::string text = to_string(fuzz::to_bytes(data, size));
  const auto agreement = cli::read_agreement(text);
  if (!agreement)
    return 0;
  if (agreement->command.empty())
    std::abort();
  if (!cli::check_agreed(*agreement, [&]() -> Result<std::string> { return text; }))
    std::abort();
  if (cli::check_agreed(*agreement, []() -> Result<std::string> { return "{}"; }))
    std::abort();
  return 0;
}
