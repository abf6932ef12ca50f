// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/check/claims.hpp>

namespace coldchain::check {

namespace {

constexpr std::uint64_t all_bits = ~std::uint64_t{0};

// The lowest `count` bits, 1 to 64 of them.
std::uint64_t low_bits(std::uint64_t count) {
  return all_bits >> (64 - count);
}

std::uint64_t largest_of(unsigned order) {
  return low_bits(1ULL << order);
}

}  // namespace

Claims::Chunk& Claims::chunk(std::uint64_t index) {
  const std::uint64_t segment = index / chunks_per_segment;
  if (segment >= most_segments)
    return far_chunks_[index];
  if (segment >= segments_.size())
    segments_.resize(segment + 1);
  if (!segments_[segment])
    segments_[segment] = std::make_unique<Segment>();
  return (*segments_[segment])[index % chunks_per_segment];
}

const Claims::Chunk* Claims::find_chunk(std::uint64_t index) const {
  const std::uint64_t segment = index / chunks_per_segment;
  if (segment >= most_segments) {
    const auto found = far_chunks_.find(index);
    return found == far_chunks_.end() ? nullptr : &found->second;
  }
  if (segment >= segments_.size() || !segments_[segment])
    return nullptr;
  const Chunk& chunk = (*segments_[segment])[index % chunks_per_segment];
  return chunk.words ? &chunk : nullptr;
}

std::uint64_t Claims::get(const Chunk& chunk, std::uint64_t place) {
  const std::uint64_t bit = place << chunk.order;
  return chunk.words[bit / 64] >> (bit % 64) & largest_of(chunk.order);
}

void Claims::set(Chunk& chunk, std::uint64_t place, std::uint64_t value) {
  const std::uint64_t bit = place << chunk.order;
  std::uint64_t& word = chunk.words[bit / 64];
  word &= ~(largest_of(chunk.order) << (bit % 64));
  word |= value << (bit % 64);
}

// Makes the counts of a chunk wide enough for `value`.
void Claims::widen(Chunk& chunk, std::uint64_t value) {
  Chunk wider;
  wider.order = static_cast<std::uint8_t>(chunk.order + 2);
  while (largest_of(wider.order) < value)
    wider.order = static_cast<std::uint8_t>(wider.order + 2);
  wider.words = std::make_unique<std::uint64_t[]>((clusters_per_chunk << wider.order) / 64);
  for (std::uint64_t place = 0; place < clusters_per_chunk; ++place)
    set(wider, place, get(chunk, place));
  chunk = std::move(wider);
}

// The common case: clusters of one chunk that nobody has claimed yet, by whole words.
bool Claims::add_free_bits(Chunk& chunk, std::uint64_t place, std::uint64_t count) {
  const auto for_each_word = [&](const auto& visit) {
    for (std::uint64_t at = place; at < place + count;) {
      const std::uint64_t bits = std::min(64 - at % 64, place + count - at);
      if (!visit(chunk.words[at / 64], low_bits(bits) << (at % 64)))
        return false;
      at += bits;
    }
    return true;
  };
  if (!for_each_word([](std::uint64_t word, std::uint64_t mask) { return (word & mask) == 0; }))
    return false;
  return for_each_word([](std::uint64_t& word, std::uint64_t mask) {
    word |= mask;
    return true;
  });
}

std::vector<Claims::Overflow> Claims::add(std::uint64_t first, std::uint64_t count,
                                          std::uint64_t times) {
  std::vector<Overflow> overflown;
  end_ = std::max(end_, first + count);
  while (count > 0) {
    Chunk& here = chunk(first / clusters_per_chunk);
    if (!here.words)
      here.words = std::make_unique<std::uint64_t[]>(clusters_per_chunk / 64);
    const std::uint64_t place = first % clusters_per_chunk;
    const std::uint64_t part = std::min(count, clusters_per_chunk - place);
    if (times != 1 || here.order != 0 || !add_free_bits(here, place, part)) {
      for (std::uint64_t at = place; at < place + part; ++at) {
        const std::uint64_t before = get(here, at);
        const std::uint64_t fits = std::min(times, most_ - before);
        if (fits < times)
          overflown.push_back({first + at - place, times - fits});
        if (before + fits > largest_of(here.order))
          widen(here, before + fits);
        set(here, at, before + fits);
      }
    }
    first += part;
    count -= part;
  }
  return overflown;
}

std::uint64_t Claims::at(std::uint64_t cluster) const {
  const Chunk* chunk = find_chunk(cluster / clusters_per_chunk);
  return chunk == nullptr ? 0 : get(*chunk, cluster % clusters_per_chunk);
}

Claims::Word Claims::word(std::uint64_t first) const {
  const Chunk* chunk = find_chunk(first / clusters_per_chunk);
  if (chunk == nullptr)
    return {};
  const std::uint64_t place = first % clusters_per_chunk;
  if (chunk->order == 0)
    return {chunk->words[place / 64], 0};
  Word word;
  for (std::uint64_t i = 0; i < 64; ++i) {
    const std::uint64_t count = get(*chunk, place + i);
    word.claimed |= std::uint64_t{count != 0} << i;
    word.shared |= std::uint64_t{count > 1} << i;
  }
  return word;
}

std::uint64_t Claims::next_used(std::uint64_t from) const {
  std::uint64_t index = from / clusters_per_chunk;
  while (index / chunks_per_segment < segments_.size()) {
    const auto& segment = segments_[index / chunks_per_segment];
    if (segment && (*segment)[index % chunks_per_segment].words)
      return std::max(from, index * clusters_per_chunk);
    index = segment ? index + 1 : (index / chunks_per_segment + 1) * chunks_per_segment;
  }
  const auto far = far_chunks_.lower_bound(index);
  return far == far_chunks_.end() ? all_bits : std::max(from, far->first * clusters_per_chunk);
}

}  // namespace coldchain::check
