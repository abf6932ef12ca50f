// SPDX-License-Identifier: MIT
// tree --output=xml against the real libvirt: volumes of a pool byte for byte, and its schemas.
#include "libvirt.hpp"
#include "loop_device.hpp"
#include "oracle.hpp"

#include <nlohmann/json.hpp>
#include <sys/xattr.h>

using namespace coldchain;
using testing::Libvirt;
using testing::LoopDevice;
using testing::run_coldchain_in;
using testing::run_in;
using testing::TempFolder;

namespace {

// The images of a pool: features, versions, and all kinds of names of backing files.
constexpr const char* images = R"(
qemu-img create -q -f raw base.raw 5M
truncate -s 1000 odd.raw
touch empty.raw
for compat in 0.10 1.1; do for cluster in 512 64k 2M; do
  qemu-img create -q -f qcow2 -o compat=$compat,cluster_size=$cluster plain-$compat-$cluster 10M
done; done
qemu-img create -q -f qcow2 -o lazy_refcounts=on lazy 10M
qemu-img create -q -f qcow2 -o extended_l2=on,lazy_refcounts=on,cluster_size=128k extended 10M
qemu-img create -q -f qcow2 -o data_file=data.raw with-data-file 4M
qemu-img create -q -f qcow2 -b base.raw -F raw top
qemu-img create -q -f qcow2 -b top -F qcow2 third
qemu-io -f qcow2 -c 'write 1M 300k' third >/dev/null
qemu-img create -q -f qcow2 -b lazy -F qcow2 "a'b\"c<d>e&f"
ln -s third link
mkdir folder
on() { qemu-img create -q -f qcow2 -u -b "$2" -F ${3-raw} on-$1 4M; }
on missing missing.raw
on missing-qcow2 missing.qcow2 qcow2
on absolute $PWD/base.raw
on dots ./folder/../base.raw
on folder $PWD/folder
on file file:base.raw
on parallels base.raw parallels
on vhdx missing.vhdx vhdx
on vpc base.raw vpc
on nbd nbd://host/export qcow2
on nbd-unix nbd+unix:///export?socket=/tmp/socket
on nbd-colon nbd:localhost:1234:exportname=x qcow2
on json "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"$PWD/base.raw\"}}"
on json-window "json:{\"driver\":\"raw\",\"offset\":65536,\"file\":{\"driver\":\"file\",\"filename\":\"$PWD/base.raw\"}}"
on json-qcow2 "json:{\"driver\":\"qcow2\",\"file.driver\":\"file\",\"file.filename\":\"lazy\"}" qcow2
on json-nbd "json:{\"driver\":\"nbd\",\"host\":\"h\",\"export\":\"e\"}"
)";

std::string xml_of(const std::string& folder, std::vector<std::string> words) {
  words.insert(words.begin(), "tree");
  return run_coldchain_in(folder, words).out;
}

void check_schema(const TempFolder& folder, const std::string& xml) {
  testing::write_file(folder / "xml", xml);
  const auto checked = run_in(folder.path(), "virt-xml-validate xml");
  CHECK_MESSAGE(checked.status == 0, checked.out << checked.err << xml);
}

std::string domain_around(const std::string& disks) {
  return "<domain type='kvm'><name>x</name><memory>1</memory><os><type>hvm</type></os><devices>" +
         disks + "</devices></domain>";
}

}  // namespace

TEST_CASE("oracle: the XML of a volume is libvirt's, byte for byte") {
  if (!testing::have_oracles() || !Libvirt::is_there())
    return;
  const Libvirt libvirt;
  const TempFolder folder;
  testing::write_file(folder / "device", std::string(8 << 20, '\0'));
  const LoopDevice device(folder / "device");
  if (!device.path().empty())
    REQUIRE(run_in(libvirt.pool(), "qemu-img create -q -f qcow2 " + device.path() +
                                       " 64M && chmod o+r " + device.path() + " && ln -s " +
                                       device.path() +
                                       " device && qemu-img create -q -f qcow2 "
                                       "-b $PWD/device -F qcow2 on-device")
                .status == 0);
  const auto made = run_in(libvirt.pool(), images);
  REQUIRE_MESSAGE(made.status == 0, made.err);
  // A label as SELinux would give it, where the file system takes one.
  const std::string label = "system_u:object_r:virt_image_t:s0";
  (void)::setxattr((libvirt.pool() + "/lazy").c_str(), "security.selinux", label.c_str(),
                   label.size() + 1, 0);
  REQUIRE(run_in(libvirt.pool(), "chmod -R a+rX .").status == 0);
  libvirt.refresh();  // reads all, so that no access time changes any more
  libvirt.refresh();
  int seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(libvirt.pool())) {
    const std::string path = entry.path();
    CAPTURE(path);
    if (entry.is_directory() && !entry.is_symlink())
      continue;
    CHECK(xml_of("/", {"--xml=volume", path}) == libvirt.volume_xml(entry.path().filename()));
    check_schema(folder, xml_of("/", {"--xml=volume", "--recursive", "--strict", path}));
    ++seen;
  }
  CHECK(seen >= 28);
}

TEST_CASE("oracle: the XML of a disk fits libvirt's schema, with all kinds of backing files") {
  if (!testing::have_oracles() || !Libvirt::is_there())
    return;
  const TempFolder folder;
  const TempFolder schema;
  const auto made = run_in(folder.path(), images);
  REQUIRE_MESSAGE(made.status == 0, made.err);
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    const std::string path = entry.path();
    CAPTURE(path);
    const bool is_refused =
        path.ends_with("/on-file") || path.ends_with("/on-vhdx") || path.ends_with("/on-parallels");
    if (entry.is_directory() || is_refused)
      continue;
    check_schema(schema, domain_around(xml_of("/", {"--xml=domain", path})));
    const std::string strict = xml_of("/", {"--xml=domain", "--recursive", "--strict", path});
    CHECK(strict == xml_of("/", {"--xml=domain", path}));
  }
  // A disk each, with names of their own.
  const std::string two = xml_of(folder.path(), {"--xml=domain", "top", "third"});
  check_schema(schema, domain_around(two));
  CHECK(two.find("<target dev='vdb'/>") != std::string::npos);
  CHECK(two.find("<backingStore type='file' index='2'>") != std::string::npos);
  const auto refused = run_coldchain_in(folder.path(), {"tree", "--xml=domain", "on-file"});
  CHECK(refused.status == 1);
  CHECK(refused.err.find("coldchain cannot write the backing file") != std::string::npos);
  const auto format = run_coldchain_in(folder.path(), {"tree", "--xml=domain", "on-vhdx"});
  CHECK(format.status == 1);
  CHECK(format.err.find("libvirt has no format 'vhdx'") != std::string::npos);
  CHECK(xml_of(folder.path(), {"--xml=domain", "--recursive", "on-vhdx"}).find("'vhdx'") !=
        std::string::npos);
}

TEST_CASE("oracle: the watermark of a device counts from the image end that qemu-img knows") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  testing::write_file(folder / "file", std::string(8 << 20, '\0'));
  const LoopDevice device(folder / "file");
  if (device.path().empty())
    return;
  // As LVM has it: /dev/VG/LV is a link.
  std::filesystem::create_symlink(device.path(), folder / "volume");
  REQUIRE(run_in(folder.path(),
                 "qemu-img create -q -f qcow2 volume 64M && "
                 "qemu-io -f qcow2 -c 'write 0 3M' volume >/dev/null && "
                 "qemu-img create -q -f qcow2 -b volume -F qcow2 top")
              .status == 0);
  const auto check = nlohmann::json::parse(
      run_in(folder.path(), "qemu-img check --output=json -f qcow2 volume").out);
  const std::uint64_t end = check["image-end-offset"];
  const auto run = [&](std::uint64_t limit, const std::string& extent) {
    return run_coldchain_in(folder.path(), {"tree", "--output=json", "--watermark",
                                            std::to_string(limit), "--extent", extent, "top"});
  };
  const std::uint64_t free = (8 << 20) - end;
  const auto enough = run(free, "1M");
  CHECK(enough.status == 0);
  const auto low = run(free + 1, "1M");
  CHECK(low.status == 3);
  const auto layers = nlohmann::json::parse(low.out)["trees"][0]["layers"];
  CHECK_FALSE(layers[0].contains("watermark"));  // a file grows by itself
  CHECK(layers[1]["watermark"]["free"] == free);
  CHECK(layers[1]["watermark"]["target"] == 9 << 20);
  CHECK(layers[1]["watermark"]["is-short"] == true);
  const auto text = run_coldchain_in(folder.path(), {"tree", "--watermark", "7M", "top"});
  CHECK(text.status == 3);
  CHECK(text.out == "IMAGE   PHYSICAL  IMAGE END     FREE   GROW TO\nvolume   8388608    " +
                        std::to_string(end) + "  " + std::to_string(free) + "  12582912\n");
  // libvirt's names, and the image end as the allocation.
  const auto stats = run_coldchain_in(folder.path(), {"tree", "--output=domstats", "top"});
  CHECK(stats.out.find("block.count=2\nblock.0.name=top\nblock.0.path=" + (folder / "top\n")) == 0);
  CHECK(stats.out.find("block.1.backingIndex=1\nblock.1.path=" + (folder / "volume") +
                       "\nblock.1.allocation=" + std::to_string(end) +
                       "\nblock.1.capacity=67108864\nblock.1.physical=8388608\n") !=
        std::string::npos);
}
