// SPDX-License-Identifier: MIT
// `tree --output=xml`: a chain as libvirt describes it. The plain forms are those of libvirt 9.0:
// a storage volume byte for byte, and the <disk> of a domain. With `recursive`, every layer has its
// sizes, permissions, times and features as well, which libvirt's schemas do not know.
#pragma once

#include <string>

#include <coldchain/report/sink.hpp>
#include <coldchain/report/tree_report.hpp>

namespace coldchain::report {

struct LibvirtXmlOptions {
  enum class Form { volume, domain };
  Form form = Form::volume;
  bool recursive = false;
  // Leave out what the schema does not take. Else a volume is what libvirt prints, which names a
  // backing file on the network by a path that its own schema refuses.
  bool strict = false;
  std::string folder;  // relative names are relative to it; absolute
  std::string target;  // of a disk: the name of the device, as "vda"
};

// Errors: invalid_argument (a name that XML cannot hold), unsupported (a backing file that libvirt
// cannot name, in a disk).
[[nodiscard]] Result<void> write_libvirt_xml(const Tree& tree, const LibvirtXmlOptions& options,
                                             const Sink& sink);

}  // namespace coldchain::report
