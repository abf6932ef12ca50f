// SPDX-License-Identifier: MIT
// Whatever opens can be checked: with the same result by one worker and by two, and with a layout
// that covers the file once.
#include "fuzz_files.hpp"

#include <cstdlib>

#include <coldchain/check/check.hpp>
#include <coldchain/check/layout.hpp>
#include <coldchain/io/memory_file.hpp>
#include <coldchain/report/check_report.hpp>

namespace {

using namespace coldchain;

void check_layout(const check::CheckResult& result, const qcow2::Image& image) {
  std::uint64_t position = 0;
  const std::uint64_t size = image.file().size();
  const auto totals = check::layout(result, image.header().cluster_size(), size,
                                    [&](const check::LayoutRange& range) {
                                      if (range.host.begin.value != position || range.host.empty())
                                        std::abort();
                                      position = range.host.end.value;
                                    });
  std::uint64_t sum = 0;
  for (const check::LayoutTotal& total : totals)
    sum += total.bytes;
  if (position != size || sum != size)
    std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const io::MemoryFile file(fuzz::to_bytes(data, size));
  const auto image = qcow2::Image::open_damaged(file);
  if (!image)
    return 0;
  const auto one = check::check(*image, {.deep = true, .workers = 1});
  const auto two = check::check(*image, {.deep = true, .workers = 2});
  if (one.has_value() != two.has_value())
    std::abort();
  if (!one)
    return 0;
  const auto& findings = one->findings.runs();
  if (one->counts.corruptions != two->counts.corruptions ||
      one->counts.leaks != two->counts.leaks || findings.size() != two->findings.runs().size())
    std::abort();
  check_layout(*one, *image);
  report::CheckedImage checked;
  checked.findings = findings;
  (void)report::write_check_json(checked, true, [](std::string_view) { return Result<void>{}; });
  return 0;
}
