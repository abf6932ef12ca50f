// SPDX-License-Identifier: MIT
#include "former_files.hpp"

#include <coldchain/base/try.hpp>

namespace coldchain::cli {

Result<std::unique_ptr<io::File>> FormerFiles::open(const std::string& path) const {
  std::unique_ptr<io::File> file = TRY(files_.open(path));
  for (const auto& former : former_) {
    if (former->status().identity == file->status().identity)
      return std::make_unique<io::OverlayFile>(*former);
  }
  return file;
}

}  // namespace coldchain::cli
