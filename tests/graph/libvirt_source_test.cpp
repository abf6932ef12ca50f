// SPDX-License-Identifier: MIT
#include <coldchain/graph/libvirt_source.hpp>

#include <doctest/doctest.h>

using namespace coldchain;
using graph::libvirt_source;
using graph::LibvirtSource;

TEST_CASE("libvirt_source: a path is joined to the overlay's folder as it is written") {
  CHECK(libvirt_source("/d/top", "base").path == "/d/base");
  CHECK(libvirt_source("/d/top", "./x/../base").path == "/d/./x/../base");
  CHECK(libvirt_source("/d/top", "/other/base").path == "/other/base");
  CHECK(libvirt_source("/d/top", "./a:b").path == "/d/./a:b");
  CHECK(libvirt_source("/d/top", "x/a:b").is_local);
}

TEST_CASE("libvirt_source: a name that libvirt 9.0 cannot read stays as it is") {
  for (const char* name : {"file:base", "a:b", R"(json:{"driver":"qcow2","file.filename":"x"})",
                           "json:{", "json:{}"}) {
    CAPTURE(name);
    const LibvirtSource source = libvirt_source("/d/top", name);
    CHECK_FALSE(source.is_local);
    CHECK(source.protocol.empty());
    CHECK(source.path == name);
  }
}

TEST_CASE("libvirt_source: json: names of the raw format give the path and the slice") {
  const LibvirtSource source = libvirt_source(
      "/d/top", R"(json:{"driver":"raw","offset":512,"size":1024,"file":{"driver":"file",)"
                R"("filename":"/x/base"}})");
  CHECK(source.is_local);
  CHECK(source.path == "/x/base");
  CHECK(source.window.offset == 512);
  CHECK(source.window.size == 1024);
  CHECK(libvirt_source("/d/top", R"(json:{"driver":"file","filename":"x"})").path == "x");
}

TEST_CASE("libvirt_source: protocols give host, port, socket and export") {
  const auto check = [](const char* name, const char* host, const char* port, const char* socket,
                        const char* export_name) {
    CAPTURE(name);
    const LibvirtSource source = libvirt_source("/d/top", name);
    CHECK(source.protocol == "nbd");
    CHECK(source.host == host);
    CHECK(source.port == port);
    CHECK(source.socket == socket);
    CHECK(source.export_name == export_name);
    CHECK(source.path == name);
    CHECK_FALSE(source.is_local);
  };
  check("nbd://host/x", "host", "", "", "x");
  check("nbd+tcp://user:secret@host:10809/x/y", "host", "10809", "", "x/y");
  check("nbd://[::1]:7/", "::1", "7", "", "");
  check("nbd+unix:///x?socket=/run/s", "", "", "/run/s", "x");
  check("nbd:host:1234:exportname=a:b", "host", "1234", "", "a:b");
  check("nbd:[::1]:5", "::1", "5", "", "");
  check("nbd:unix:/run/s:exportname=x", "", "", "/run/s", "x");
  CHECK(libvirt_source("/d/top", "https://h/a?b=c").export_name == "a?b=c");
  const LibvirtSource json = libvirt_source(
      "/d/top", R"(json:{"driver":"raw","file":{"driver":"nbd","export":"e","server":)"
                R"({"type":"inet","host":"h","port":"10809"}}})");
  CHECK(json.protocol == "nbd");
  CHECK(json.host == "h");
  CHECK(json.port == "10809");
  CHECK(json.export_name == "e");
  CHECK(libvirt_source("/d/top",
                       R"(json:{"driver":"nbd","server.type":"unix","server.path":"/run/s"})")
            .socket == "/run/s");
  const auto name_of = [](const char* name) {
    const LibvirtSource source = libvirt_source("/d/top", name);
    return source.protocol + " " + source.host + " " + source.port + " " + source.export_name;
  };
  CHECK(name_of(R"(json:{"driver":"rbd","pool":"p","image":"i"})") == "rbd   p/i");
  CHECK(name_of(R"(json:{"driver":"gluster","volume":"v","path":"a/b","server":[{"type":"inet",)"
                R"("host":"h","port":"24007"},{"type":"unix","path":"/s"}]})") ==
        "gluster h 24007 v/a/b");
  CHECK(name_of(
            R"(json:{"driver":"iscsi","portal":"h:3260","target":"iqn.x:t","transport":"tcp"})") ==
        "iscsi h 3260 iqn.x:t/0");
  CHECK(name_of("gluster+tcp://h/v/a%20b%zz") == "gluster h  v/a b%zz");
  CHECK(libvirt_source("/d/top", "nbd+unix:///x?a=b&socket=%2Frun%2Fs").socket == "/run/s");
  const LibvirtSource url =
      libvirt_source("/d/top", R"(json:{"driver":"https","url":"https://h:8/a"})");
  CHECK(url.host == "h");
  CHECK(url.export_name == "a");
}
