// SPDX-License-Identifier: MIT
// How names are written and resolved, against qemu-img: run in the overlay's folder, where both
// agree even on relative json: and file: names.
#include "oracle.hpp"
#include "temp_folder.hpp"

#include <filesystem>

#include <doctest/doctest.h>

using namespace coldchain;
using testing::check_like_qemu_img;
using testing::quoted;
using testing::run_in;
using testing::TempFolder;

TEST_CASE(
    "oracle: every spelling of a backing file leads to the same map and info as in qemu-img") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  std::filesystem::create_directories(folder / "sub");
  REQUIRE(run_in(folder.path(),
                 "qemu-img create -q -f raw base.raw 1M && "
                 "qemu-io -f raw -c 'write -P 7 64k 64k' base.raw >/dev/null && "
                 "cp base.raw sub/base.raw && cp base.raw 'we,ird name'")
              .status == 0);
  const std::vector<std::string> names = {
      "base.raw",
      "./base.raw",
      "sub/../base.raw",
      folder / "base.raw",
      "file:base.raw",
      "we,ird name",
      R"(json:{"driver":"raw","file":{"driver":"file","filename":"base.raw"}})",
      R"(json:{"driver":"raw","file.driver":"file","file.filename":"sub/base.raw"})",
      "json:{'driver':'raw','file':{'driver':'file','filename':'base.raw'}}",
      R"(json: {'driver' : "raw", "file.filename": './sub\/base.raw'})"};
  for (const std::string& name : names) {
    REQUIRE(run_in(folder.path(),
                   "qemu-img create -q -f qcow2 -F raw -b " + quoted(name) + " top.qcow2 1M")
                .status == 0);
    check_like_qemu_img(folder.path(), {"map", "--output=json", "top.qcow2"});
    check_like_qemu_img(folder.path(), {"map", "top.qcow2"});
    check_like_qemu_img(folder.path(), {"info", "--backing-chain", "top.qcow2"});
  }
  REQUIRE(run_in(folder.path(), "qemu-img create -q -f qcow2 -F raw -b ../base.raw sub/o.qcow2 1M")
              .status == 0);
  check_like_qemu_img(folder.path(), {"info", "--backing-chain", "sub/o.qcow2"});
  check_like_qemu_img(folder.path(), {"info", folder / "sub/o.qcow2"});
  check_like_qemu_img(folder.path(), {"map", "sub/o.qcow2"});
}

TEST_CASE(
    "oracle: image options and json: names on the command line mean what they mean to qemu-img") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  REQUIRE(run_in(folder.path(),
                 "qemu-img create -q -f raw base.raw 1M && "
                 "qemu-img create -q -f qcow2 -F raw -b base.raw top.qcow2 && "
                 "qemu-io -f qcow2 -c 'write -P 7 64k 64k' top.qcow2 >/dev/null")
              .status == 0);
  check_like_qemu_img(folder.path(), {"map", "--output=json", "--image-opts",
                                      "driver=qcow2,file.filename=top.qcow2"});
  check_like_qemu_img(folder.path(), {"info", "--image-opts",
                                      "driver=qcow2,file.driver=file,file.filename=top.qcow2"});
  check_like_qemu_img(
      folder.path(),
      {"map", "--output=json",
       R"(json:{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":"top.qcow2"}})"});
  check_like_qemu_img(folder.path(), {"map", "--output=json",
                                      R"(json:{"driver":"qcow2","file.filename":"top.qcow2"})"});
  check_like_qemu_img(folder.path(), {"map", "--output=json", "file:top.qcow2"});
}

TEST_CASE("oracle: the strings of json: names have the quotes and escapes of qemu-img") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  REQUIRE(run_in(folder.path(),
                 "qemu-img create -q -f qcow2 x 1M && cp x \"it's\" && cp x 'quo\"te' && cp x ü")
              .status == 0);
  for (const char* const options : {R"({'driver':'qcow2','file':{'driver':'file','filename':'x'}})",
                                    R"({'driver':"qcow2","file.filename":'x'})",
                                    R"( { 'driver' : 'qcow2' , 'file.filename' : 'x' } )",
                                    R"({'file.filename':'x','read-only':true,'backing':null})",
                                    R"({'file.filename':'it\'s'})",
                                    R"({"file.filename":"it's"})",
                                    R"({"file.filename":"it\'s"})",
                                    R"({'file.filename':'quo"te'})",
                                    R"({'file.filename':'quo\"te'})",
                                    R"({'file.filename':'.\/\u0078'})",
                                    R"({'file.filename':'\u00fc'})",
                                    R"({'file.filename':'ü'})",
                                    R"({'file.filename':'%s'})",
                                    R"({'file.filename':%s})",
                                    R"({'file.filename':'x\q'})",
                                    R"({'file.filename':'\x78'})",
                                    R"({'file.filename':'\ud83d'})",
                                    R"({'file.filename':'x\u0000y'})",
                                    "{'file.filename':'x\t'}",
                                    "{'file.filename':'\xfc'}",
                                    R"({'file.filename':'x',})",
                                    R"({'file.filename':'x')",
                                    R"({'file.filename':'x})",
                                    R"({'file.filename':'x"})",
                                    R"({'file.filename':'x'}})",
                                    R"({'file.filename':'x'} 'y')",
                                    R"({file.filename:'x'})",
                                    R"({'file.filename':x})",
                                    R"({'file.filename':'x','file.filename':'x'})",
                                    R"({"driver":"qcow2",'driver':'qcow2','file.filename':'x'})",
                                    R"({'file.filename':'x','read-only':True})",
                                    "'x'",
                                    "['x']",
                                    "{}",
                                    "\xEF\xBB\xBF{'file.filename':'x'}"})
    check_like_qemu_img(folder.path(), {"info", std::string("json:") + options});
}

TEST_CASE("oracle: options that give neither a driver nor a file are refused as by qemu-img") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  REQUIRE(run_in(folder.path(),
                 "qemu-img create -q -f raw base.raw 1M && "
                 "qemu-img create -q -f qcow2 -F raw -b base.raw top.qcow2")
              .status == 0);
  for (const std::string options :
       {R"("filename":"base.raw")", R"("filename":"base.raw","node-name":"n")",
        R"("file":{"filename":"base.raw"})", R"("file":{"file":{"filename":"base.raw"}})",
        R"("driver":"file","filename":"base.raw")",
        R"("driver":"qcow2","file.filename":"top.qcow2","backing.filename":"base.raw")",
        R"("driver":"qcow2","file.filename":"top.qcow2","backing.file.filename":"base.raw")"})
    check_like_qemu_img(folder.path(), {"map", "--output=json", "json:{" + options + "}"});
  const testing::Ran ran =
      testing::run_coldchain_in(folder.path(), {"map", R"(json:{"filename":"base.raw"})"});
  CHECK(ran.err.find("Must specify either driver or file") != std::string::npos);
  check_like_qemu_img(folder.path(), {"info", "--image-opts", "filename=base.raw"});
}

TEST_CASE("oracle: a file whose name has a colon in it is reached by options, as with qemu-img") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  for (const std::string path : {"nbd:x", "file:x", ":x", ":"}) {
    REQUIRE(run_in(folder.path(), "truncate -s 1M ./" + path).status == 0);
    for (const std::string options : {R"("driver":"raw","file.filename":)", R"("file.filename":)",
                                      R"("driver":"raw","file.driver":"file","file.filename":)"})
      check_like_qemu_img(folder.path(),
                          {"map", "--output=json", "json:{" + options + "\"" + path + "\"}"});
    check_like_qemu_img(folder.path(), {"info", "--image-opts", "file.filename=" + path});
  }
}

TEST_CASE("oracle: an image that another process writes to is refused, unless -U") {
  if (!testing::have_oracles())
    return;
  const TempFolder folder;
  REQUIRE(run_in(folder.path(), "qemu-img create -q -f qcow2 top.qcow2 1M").status == 0);
  const auto theirs = run_in(
      folder.path(),
      "mkfifo hold; (sleep 2 > hold) & qemu-io -f qcow2 top.qcow2 < hold >/dev/null & sleep 0.7; "
      "qemu-img info top.qcow2 2>theirs; echo $? > theirs-status; " COLDCHAIN_PROGRAM
      " info top.qcow2 2>ours; echo $? > ours-status; " COLDCHAIN_PROGRAM
      " info -U top.qcow2 >shared; echo $? >> ours-status; wait");
  const auto read = [&](const char* name) {
    std::ifstream file(folder / name);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  CHECK(read("theirs-status") == "1\n");
  CHECK(read("ours-status") == "1\n0\n");
  CHECK(read("ours") == "coldchain: " + read("theirs").substr(std::string("qemu-img: ").size()));
  CHECK(read("shared").find("image: top.qcow2") != std::string::npos);
}
