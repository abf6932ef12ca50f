// SPDX-License-Identifier: MIT
// libvirtd as an oracle: a daemon of its own, as another user, with all its files in a folder. The
// test ends the process that it started, and no other.
#pragma once

#include "process.hpp"
#include "temp_folder.hpp"

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace coldchain::testing {

constexpr uid_t libvirt_user = 65534;

class Libvirt {
 public:
  Libvirt() {
    namespace fs = std::filesystem;
    for (const char* name : {"home", "config", "cache", "run", "pool"}) {
      fs::create_directory(folder_ / name);
      REQUIRE(::chown((folder_ / name).c_str(), libvirt_user, libvirt_user) == 0);
    }
    REQUIRE(::chown(folder_.path().c_str(), libvirt_user, libvirt_user) == 0);
    start();
    for (int tries = 0; tries < 300 && !fs::exists(socket()); ++tries)
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    testing::write_file(folder_ / "pool.xml", "<pool type='dir'><name>p</name><target><path>" +
                                                  (folder_ / "pool") + "</path></target></pool>");
    const Process made = virsh("pool-create " + quoted(folder_ / "pool.xml"));
    REQUIRE_MESSAGE(made.status == 0, made.err);
  }
  Libvirt(const Libvirt&) = delete;
  Libvirt& operator=(const Libvirt&) = delete;
  ~Libvirt() {
    if (process_ <= 0)
      return;
    ::kill(process_, SIGTERM);
    ::waitpid(process_, nullptr, 0);
  }

  // Of root only, who can be another user. In CI, where an oracle must be there, a missing one is a
  // failure.
  [[nodiscard]] static bool is_there() {
    if (::geteuid() == 0 && run_in("/", "command -v libvirtd virsh virt-xml-validate").status == 0)
      return true;
    if (::geteuid() == 0)
      REQUIRE_MESSAGE(::getenv("COLDCHAIN_REQUIRE_ORACLES") == nullptr, "libvirt is not installed");
    MESSAGE("skipped: libvirt is not installed, or this is not root");
    return false;
  }

  // The folder of the pool, whose files the daemon must be able to read.
  [[nodiscard]] std::string pool() const { return folder_ / "pool"; }

  // Empty: not a volume.
  [[nodiscard]] std::string volume_xml(const std::string& name) const {
    std::string text = virsh("vol-dumpxml --pool p " + quoted(name)).out;
    while (text.ends_with("\n\n"))
      text.pop_back();
    return text;
  }
  void refresh() const { REQUIRE(virsh("pool-refresh p").status == 0); }

 private:
  [[nodiscard]] std::string socket() const { return folder_ / "run/libvirt/libvirt-sock"; }

  [[nodiscard]] Process virsh(const std::string& words) const {
    return run_in("/", "virsh -q -c " + quoted("qemu:///session?socket=" + socket()) + " " + words);
  }

  void start() {
    process_ = ::fork();
    REQUIRE(process_ >= 0);
    if (process_ != 0)
      return;
    const int log = ::open((folder_ / "log").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (log >= 0) {
      ::dup2(log, STDOUT_FILENO);
      ::dup2(log, STDERR_FILENO);
    }
    const std::string user = std::to_string(libvirt_user);
    const std::string reuid = "--reuid=" + user;
    const std::string regid = "--regid=" + user;
    const std::string home = "HOME=" + (folder_ / "home");
    const std::string config = "XDG_CONFIG_HOME=" + (folder_ / "config");
    const std::string cache = "XDG_CACHE_HOME=" + (folder_ / "cache");
    const std::string run = "XDG_RUNTIME_DIR=" + (folder_ / "run");
    ::execlp("setpriv", "setpriv", reuid.c_str(), regid.c_str(), "--clear-groups", "env", "-i",
             "PATH=/usr/sbin:/usr/bin:/sbin:/bin", home.c_str(), config.c_str(), cache.c_str(),
             run.c_str(), "libvirtd", nullptr);
    ::_exit(127);
  }

  TempFolder folder_;
  pid_t process_ = -1;
};

}  // namespace coldchain::testing
