// SPDX-License-Identifier: MIT
#include <coldchain/graph/name.hpp>

#include <doctest/doctest.h>
#include <fmt/format.h>

using namespace coldchain;
using namespace coldchain::graph;

namespace {

NameSpec parsed(std::string_view name) {
  Result<NameSpec> spec = parse_name(name);
  REQUIRE_MESSAGE(spec.has_value(), name);
  return std::move(*spec);
}

bool is_refused(std::string_view name) {
  return !parse_name(name).has_value();
}

}  // namespace

TEST_CASE("parse_name: a ':' before the first '/' makes a protocol") {
  CHECK(parsed("a:b.raw").protocol == "a");
  CHECK(parsed("nbd://host/x").protocol == "nbd");
  CHECK(parsed("./a:b.raw").path == "./a:b.raw");
  CHECK(parsed("/d/a:b").path == "/d/a:b");
  CHECK(parsed("base.raw").path == "base.raw");
}

TEST_CASE("parse_name: file: is stripped and remembered") {
  CHECK(parsed("file:base.raw").path == "base.raw");
  CHECK(parsed("file:base.raw").from_options);
  CHECK(parsed("file:///abs").path == "///abs");
  CHECK_FALSE(parsed("base.raw").from_options);
}

TEST_CASE("parse_name: json: nested, dotted and mixed forms mean the same") {
  for (const char* name :
       {R"(json:{"driver":"qcow2","file":{"driver":"file","filename":"x"}})",
        R"(json:{"driver":"qcow2","file.driver":"file","file.filename":"x"})",
        R"(json:{"driver":"qcow2","file":{"driver":"file"},"file.filename":"x"})"}) {
    const NameSpec spec = parsed(name);
    CHECK(spec.path == "x");
    CHECK(spec.format == "qcow2");
  }
  CHECK(parsed(R"(json:{"driver":"file","filename":"x"})").path == "x");
  CHECK(parsed(R"(json:{"driver":"file","filename":"x"})").format == "file");
  CHECK_FALSE(parsed(R"(json:{"file":{"driver":"file","filename":"x"}})").format.has_value());
  CHECK(parsed(R"(json:{"file":{"driver":"host_device","filename":"/dev/x"}})").path == "/dev/x");
  CHECK(parsed(R"(json:{"driver":"file","filename":"nbd:x"})").path == "nbd:x");
}

TEST_CASE("parse_name: json: strings are in double or in single quotes") {
  CHECK(parsed("json:{'driver':'qcow2','file':{'driver':'file','filename':'x'}}").path == "x");
  CHECK(parsed(R"(json:{'driver':"qcow2","file.filename":'x'})").format == "qcow2");
  CHECK(parsed(R"(json:{'file.filename':'it\'s "x"'})").path == R"(it's "x")");
  CHECK(parsed(R"(json:{"file.filename":"it's, it\'s"})").path == "it's, it's");
  CHECK(parsed(R"(json:{'file.filename':'\"\\\/\u00fc'})").path == "\"\\/\xC3\xBC");
  for (const char* name :
       {"json:{'file.filename':'x}", "json:{'file.filename':'x\"}", "json:{'file.filename':'x\\",
        R"(json:{'file.filename':'\q'})", "json:{'file.filename':'x\n'}",
        "json:{'file.filename':'x'} 'y'", "json:{file.filename:'x'}", "json:''", "json:'x'"})
    CHECK_MESSAGE(is_refused(name), name);
}

TEST_CASE("parse_name: json: an object that has a name twice is refused") {
  CHECK(is_refused(R"(json:{"file.filename":"x",'file.filename':'x'})"));
  CHECK(is_refused(R"(json:{"driver":"qcow2","file":{"filename":"x","filename":"y"}})"));
  CHECK(parsed(R"(json:{"driver":"qcow2","file":{"driver":"file","filename":"x"}})").path == "x");
}

TEST_CASE("parse_name: json: a file name with a NUL byte in it is refused") {
  CHECK(is_refused(R"(json:{"file.filename":"x\u0000y"})"));
}

TEST_CASE("parse_name: json: options of raw and qcow2") {
  const NameSpec window = parsed(
      R"(json:{"driver":"raw","offset":512,"size":"1024","file":{"driver":"file","filename":"x"}})");
  CHECK(window.window.offset == 512);
  CHECK(window.window.size == 1024);
  const NameSpec alone =
      parsed(R"(json:{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":"x"}})");
  CHECK(alone.without_backing);
  const NameSpec given = parsed(
      R"(json:{"driver":"qcow2","file.filename":"x","backing.driver":"raw","backing.file.filename":"y","data-file.filename":"z"})");
  REQUIRE(given.backing != nullptr);
  CHECK(given.backing->path == "y");
  REQUIRE(given.data_file != nullptr);
  CHECK(given.data_file->path == "z");
}

TEST_CASE("parse_name: json: a format lies over a window of the raw driver") {
  const NameSpec image = parsed(
      R"(json:{"driver":"qcow2","file":{"driver":"raw","offset":512,"size":1024,"file.filename":"x"}})");
  CHECK(image.format == "qcow2");
  CHECK(image.path == "x");
  CHECK(image.file_window.offset == 512);
  CHECK(image.file_window.size == 1024);
  CHECK(image.window.is_whole());
  const NameSpec probed =
      parsed(R"(json:{"file":{"driver":"raw","offset":512,"file.filename":"x"}})");
  CHECK_FALSE(probed.format.has_value());
  CHECK(probed.file_window.offset == 512);
  const NameSpec raw = parsed(
      R"(json:{"driver":"raw","offset":512,"file":{"driver":"raw","offset":512,"size":2048,"file.filename":"x"}})");
  CHECK(raw.window.offset == 1024);
  CHECK(raw.window.size == 1536);
  CHECK(raw.file_window.is_whole());
  CHECK(is_refused(
      R"(json:{"driver":"raw","offset":1024,"file":{"driver":"raw","size":512,"file.filename":"x"}})"));
  CHECK(is_refused(
      R"(json:{"driver":"raw","offset":18446744073709551615,"file":{"driver":"raw","offset":512,"file.filename":"x"}})"));
}

TEST_CASE("parse_name: json: network drivers are nodes that are not opened") {
  CHECK(parsed(R"(json:{"driver":"nbd","host":"h","port":"1"})").protocol == "nbd");
  CHECK(parsed(R"(json:{"driver":"raw","file":{"driver":"http","url":"http://h/x"}})").protocol ==
        "http");
}

TEST_CASE("parse_name: json: a colon in a file name is part of the name") {
  for (const char* path : {"nbd:x", "file:x", ":x", ":"}) {
    const NameSpec spec = parsed(fmt::format(R"(json:{{"file.filename":"{}"}})", path));
    CHECK(spec.path == path);
    CHECK(spec.protocol.empty());
  }
}

TEST_CASE("parse_name: json: what is not understood is refused") {
  for (const char* name :
       {":x",
        "json:",
        "json:{",
        "json:[]",
        "json:{}",
        "json:1",
        R"(json:{"driver":1})",
        R"(json:{"driver":"file"})",
        R"(json:{"driver":"vmdk","file.filename":"x"})",
        R"(json:{"driver":"blkdebug","image.filename":"x"})",
        R"(json:{"driver":"quorum","children":[]})",
        R"(json:{"driver":"raw","file":"node"})",
        R"(json:{"driver":"raw","file.filename":"x","size":"many"})",
        R"(json:{"driver":"raw","file.filename":"x","size":-1})",
        R"(json:{"driver":"raw","file.filename":"x","unknown":1})",
        R"(json:{"driver":"file","filename":"x","pr":1})",
        R"(json:{"driver":"qcow2"})",
        R"(json:{"filename":"x"})",
        R"(json:{"filename":"x","node-name":"n"})",
        R"(json:{"file":{"file":{"filename":"x"}}})",
        R"(json:{"driver":"qcow2","file.filename":"x","backing.filename":"y"})",
        R"(json:{"file":{"filename":"x"},"file.filename":"y"})",
        R"(json:{"file.filename":"x","file":{"filename":"y"}})",
        R"(json:{"driver":"qcow2","offset":512,"file.filename":"x"})",
        R"(json:{"driver":"raw","file":{"driver":"qcow2","file.filename":"x"}})"})
    CHECK_MESSAGE(is_refused(name), name);
}

TEST_CASE("parse_name: json: deep nesting and huge texts cost nothing") {
  std::string deep = "json:";
  for (int i = 0; i < 100000; ++i)
    deep += "{\"file\":";
  CHECK(is_refused(deep));
  CHECK(is_refused("json:{\"driver\":\"" + std::string(1 << 20, 'x') + "\"}"));
  std::string dots = "json:{\"";
  for (int i = 0; i < 5000; ++i)
    dots += "file.";
  CHECK(is_refused(dots + "filename\":\"x\"}"));
}

TEST_CASE("parse_image_opts: key=value pairs, a doubled comma is literal") {
  const NameSpec spec = parse_image_opts("driver=qcow2,file.filename=a,,b.qcow2").value();
  CHECK(spec.path == "a,b.qcow2");
  CHECK(spec.format == "qcow2");
  CHECK_FALSE(parse_image_opts("driver=qcow2"));
  CHECK_FALSE(parse_image_opts("a.qcow2"));
  CHECK_FALSE(parse_image_opts(""));
  CHECK_FALSE(parse_image_opts("driver=qcow2,driver=raw,file.filename=x"));
}

TEST_CASE("resolve_path: relative names are joined to the overlay's folder as it is spelled") {
  CHECK(resolve_path("dir/o.qcow2", "base.raw") == "dir/base.raw");
  CHECK(resolve_path("dir/sub/../o.qcow2", "../base.raw") == "dir/sub/../../base.raw");
  CHECK(resolve_path("o.qcow2", "base.raw") == "base.raw");
  CHECK(resolve_path("/o.qcow2", "base.raw") == "/base.raw");
  CHECK(resolve_path("dir/o.qcow2", "/base.raw") == "/base.raw");
}
