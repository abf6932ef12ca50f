// SPDX-License-Identifier: MIT
// What QEMU itself writes never looks suspicious.
#include "oracle.hpp"
#include "temp_folder.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

using namespace coldchain;
using testing::run_coldchain_in;
using testing::TempFolder;

TEST_CASE("oracle: files that QEMU writes have no note of what only looks suspicious") {
  if (!testing::have_oracles())
    return;
  for (const char* cluster_size : {"512", "64k", "2M"}) {
    for (const char* preallocation : {"off", "metadata", "falloc", "full"}) {
      const TempFolder folder;
      CAPTURE(cluster_size);
      CAPTURE(preallocation);
      const std::string script = fmt::format(
          R"(set -e
qemu-img create -q -f qcow2 -o cluster_size={},preallocation={} new 8M
cp new used
qemu-io -f qcow2 -c 'write -q 5M 1M' -c 'write -q 0 1M' -c 'write -q 3M 300k' used
qemu-io -f qcow2 -c 'write -q -z 5M 1M' -c 'discard -q 3M 100k' used
cp used shrunk; qemu-img resize -q --shrink shrunk 5000k
cp used grown; qemu-img resize -q grown 12M
cp used reserved; qemu-img resize -q --preallocation=metadata reserved 12M
cp used applied; qemu-img snapshot -c s applied; qemu-io -f qcow2 -c 'write -q 2M 2M' applied
qemu-img snapshot -a s applied; cp applied deleted; qemu-img snapshot -d s deleted
qemu-img convert -q -O qcow2 -c used packed
qemu-img convert -q -O qcow2 -S 0 used whole)",
          cluster_size, preallocation);
      const testing::Process made = testing::run_in(folder.path(), script);
      REQUIRE_MESSAGE(made.status == 0, made.err);
      for (const char* name : {"new", "used", "shrunk", "grown", "reserved", "applied", "deleted",
                               "packed", "whole"}) {
        CAPTURE(name);
        const auto ran = run_coldchain_in(folder.path(), {"check", "--deep", "--list", name});
        for (const char* note : {"zero-tail", "mapped-past-disk", "image-behind-end",
                                 "l2-table-part-empty", "lost-snapshot", "orphan-content"})
          CHECK_MESSAGE(ran.out.find(note) == std::string::npos, ran.out);
      }
    }
  }
}
