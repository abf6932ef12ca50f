// SPDX-License-Identifier: MIT
#include <random>

#include <coldchain/codec/codec.hpp>
#include <coldchain/codec/digest.hpp>

#include <doctest/doctest.h>
#include <zlib.h>
#include <zstd.h>

using namespace coldchain;

namespace {

Bytes some_bytes(std::size_t size) {
  Bytes bytes(size);
  std::mt19937 random(1);
  for (std::size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<std::byte>(i % 7 == 0 ? random() : 'a');
  return bytes;
}

Bytes deflated(const Bytes& plain, int flush) {
  z_stream stream = {};
  ::deflateInit2(&stream, 9, Z_DEFLATED, -15, 9, Z_DEFAULT_STRATEGY);
  Bytes out(::deflateBound(&stream, plain.size()) + 64);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(plain.data()));
  stream.avail_in = static_cast<uInt>(plain.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  ::deflate(&stream, flush);
  out.resize(stream.total_out);
  ::deflateEnd(&stream);
  return out;
}

Bytes zstd(const Bytes& plain) {
  Bytes out(ZSTD_compressBound(plain.size()));
  out.resize(ZSTD_compress(out.data(), out.size(), plain.data(), plain.size(), 3));
  return out;
}

}  // namespace

TEST_CASE("inflate: gives back the cluster, whatever follows the stream") {
  const Bytes plain = some_bytes(65536);
  Bytes stream = deflated(plain, Z_FINISH);
  stream.insert(stream.end(), 100, std::byte{0xff});
  Bytes out(plain.size());
  REQUIRE(codec::inflate(stream, out));
  CHECK(out == plain);
}

TEST_CASE("inflate: accepts a stream that fills the cluster without an end mark") {
  const Bytes plain = some_bytes(65536);
  const Bytes stream = deflated(plain, Z_SYNC_FLUSH);
  Bytes out(plain.size());
  REQUIRE(codec::inflate(stream, out));
  CHECK(out == plain);
}

TEST_CASE("inflate: refuses a stream that is cut, damaged or too short for the cluster") {
  const Bytes plain = some_bytes(65536);
  Bytes stream = deflated(plain, Z_FINISH);
  Bytes out(plain.size());
  CHECK_FALSE(codec::inflate(ByteView(stream).first(stream.size() / 2), out));
  CHECK_FALSE(codec::inflate({}, out));
  CHECK_FALSE(codec::inflate(Bytes(64, std::byte{0xff}), out));
  CHECK_FALSE(codec::inflate(deflated(some_bytes(1000), Z_FINISH), out));
}

TEST_CASE("unzstd: gives back the cluster, also from several frames and with bytes behind them") {
  const Bytes plain = some_bytes(65536);
  Bytes stream = zstd(plain);
  stream.insert(stream.end(), 100, std::byte{0});
  Bytes out(plain.size());
  REQUIRE(codec::unzstd(stream, out));
  CHECK(out == plain);

  Bytes two = zstd(Bytes(plain.begin(), plain.begin() + 1000));
  const Bytes second = zstd(Bytes(plain.begin() + 1000, plain.end()));
  two.insert(two.end(), second.begin(), second.end());
  REQUIRE(codec::unzstd(two, out));
  CHECK(out == plain);
}

TEST_CASE("unzstd: refuses what is cut, damaged, too short or too long for the cluster") {
  const Bytes plain = some_bytes(65536);
  const Bytes stream = zstd(plain);
  Bytes out(plain.size());
  CHECK_FALSE(codec::unzstd(ByteView(stream).first(stream.size() - 5), out));
  CHECK_FALSE(codec::unzstd({}, out));
  CHECK_FALSE(codec::unzstd(Bytes(64, std::byte{0xff}), out));
  CHECK_FALSE(codec::unzstd(zstd(some_bytes(1000)), out));
  CHECK_FALSE(codec::unzstd(zstd(some_bytes(70000)), out));
}

TEST_CASE("deflate: QEMU's window holds what is needed to give back the cluster") {
  // Repeats itself from farther away than QEMU looks back.
  Bytes plain = some_bytes(65536);
  std::copy_n(plain.begin(), 20000, plain.begin() + 40000);
  Bytes stream(plain.size());
  const std::size_t size = codec::deflate(plain, stream).value();
  REQUIRE(size != 0);
  z_stream inflater = {};
  REQUIRE(::inflateInit2(&inflater, -12) == Z_OK);
  Bytes out(plain.size());
  inflater.next_in = reinterpret_cast<Bytef*>(stream.data());
  inflater.avail_in = static_cast<uInt>(size);
  inflater.next_out = reinterpret_cast<Bytef*>(out.data());
  inflater.avail_out = static_cast<uInt>(out.size());
  CHECK(::inflate(&inflater, Z_FINISH) == Z_STREAM_END);
  ::inflateEnd(&inflater);
  CHECK(out == plain);
}

TEST_CASE("deflate, zstd: what is compressed comes back, is the same each time, or has no room") {
  const Bytes plain = some_bytes(65536);
  const auto look = [&](auto compress, auto decompress) {
    Bytes stream(plain.size());
    const std::size_t size = compress(plain, stream).value();
    REQUIRE(size > 0);
    CHECK(size < plain.size());
    Bytes out(plain.size());
    REQUIRE(decompress(ByteView(stream).first(size), ByteSpan(out)));
    CHECK(out == plain);
    Bytes narrow(size - 1);
    CHECK(compress(plain, narrow).value() == 0);
    Bytes again(plain.size());
    CHECK(compress(plain, again).value() == size);
    CHECK(again == stream);
  };
  look(codec::deflate, codec::inflate);
  look(codec::zstd, codec::unzstd);
}

TEST_CASE("Sha256: is that of FIPS 180-4, however the bytes are cut") {
  codec::Sha256 whole;
  whole.update(text_bytes("abc"));
  CHECK(codec::to_hex(whole.finish()) ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  codec::Sha256 cut;
  cut.update(text_bytes("a"));
  cut.update(text_bytes("bc"));
  CHECK(codec::to_hex(cut.finish()) ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_CASE("Sha256: texts one after the other are not taken for others") {
  const auto digest = [](const std::string& one, const std::string& other) {
    codec::Sha256 sha256;
    sha256.update_text(one);
    sha256.update_text(other);
    return sha256.finish();
  };
  CHECK(digest("a", "bc") != digest("ab", "c"));
}
