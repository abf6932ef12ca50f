// SPDX-License-Identifier: MIT
#include <algorithm>

#include <coldchain/base/checked.hpp>
#include <coldchain/check/layout.hpp>

namespace coldchain::check {

namespace {

std::string_view name_of(Use use, finding::Structure structure) {
  switch (use) {
    case Use::structure:
      return finding::to_string(structure);
    case Use::data:
      return "data";
    case Use::compressed:
      return "compressed data";
    case Use::leaked:
      return "leaked";
    case Use::unknown:
      return "unknown";
    case Use::free:
      return "free";
  }
  return "";
}

// Merges neighbours of one use, cuts them at the end of the file and adds them up.
class RangeBuilder {
 public:
  RangeBuilder(std::uint64_t cluster_size, std::uint64_t file_size,
               const std::function<void(const LayoutRange&)>& consume)
      : cluster_size_(cluster_size), file_size_(file_size), consume_(consume) {}

  // Clusters up to `end` from where the last call ended.
  void add_until(std::uint64_t end, Use use, finding::Structure structure = {}) {
    const HostOffset host_end{end > file_size_ / cluster_size_ ? file_size_ : end * cluster_size_};
    const HostOffset begin = pending_.host.end;
    if (host_end <= begin)
      return;
    if (pending_.use != use || pending_.structure != structure)
      flush();
    pending_ = {{pending_.host.empty() ? begin : pending_.host.begin, host_end}, use, structure};
  }

  std::vector<LayoutTotal> finish() {
    flush();
    std::sort(totals_.begin(), totals_.end(),
              [](const LayoutTotal& a, const LayoutTotal& b) { return a.bytes > b.bytes; });
    return std::move(totals_);
  }

 private:
  void flush() {
    if (pending_.host.empty())
      return;
    consume_(pending_);
    auto total = std::find_if(totals_.begin(), totals_.end(), [&](const LayoutTotal& candidate) {
      return candidate.use == pending_.use && candidate.structure == pending_.structure;
    });
    if (total == totals_.end())
      total = totals_.insert(total, {pending_.use, pending_.structure, 0});
    total->bytes += pending_.host.size();
    pending_.host.begin = pending_.host.end;
  }

  std::uint64_t cluster_size_;
  std::uint64_t file_size_;
  const std::function<void(const LayoutRange&)>& consume_;
  LayoutRange pending_;
  std::vector<LayoutTotal> totals_;
};

// Clusters between two structures, by what refers to them. Stretches of one use are found by words.
class DataWalk {
 public:
  DataWalk(const CheckResult& result, RangeBuilder& builder) : result_(result), builder_(builder) {}

  void walk(std::uint64_t first, std::uint64_t end) {
    // Behind the last reference and the last leak there is nothing but free space.
    const std::uint64_t used = std::min(end, std::max(result_.claims.end(), result_.stored.end()));
    for (std::uint64_t cluster = first; cluster < used;) {
      const Use use = use_of(cluster);
      const bool is_unused = use == Use::free || use == Use::unknown;
      if (const std::uint64_t next = next_used(cluster); is_unused && next > cluster) {
        builder_.add_until(std::min(next, used), use);
        cluster = next;
        continue;
      }
      const std::uint64_t word_end = std::min(used, cluster / 64 * 64 + 64);
      std::uint64_t next = cluster + 1;
      while (next < word_end && use_of(next) == use)
        ++next;
      builder_.add_until(next, use);
      cluster = next;
    }
    builder_.add_until(end, Use::free);
  }

 private:
  // The next cluster that may be in use, from the one that use_of() saw last. Looks for a claim and
  // a count only where the last one has been passed.
  [[nodiscard]] std::uint64_t next_used(std::uint64_t cluster) {
    if (next_claimed_ < cluster || cluster == 0)
      next_claimed_ = result_.claims.next_used(cluster);
    if (next_stored_ < cluster || cluster == 0)
      next_stored_ = result_.stored.next_used(cluster);
    // Where counts cannot be read, nothing is known to be leaked: the rest of the block is one
    // step.
    const std::uint64_t in_block = result_.stored.clusters_per_block();
    const std::uint64_t next = next_stored_ == cluster && unreadable_ != 0
                                   ? align_down(cluster, in_block) + in_block
                                   : next_stored_;
    return std::min(next_claimed_, next);
  }

  [[nodiscard]] Use use_of(std::uint64_t cluster) {
    const std::uint64_t first = cluster / 64 * 64;
    if (first != first_) {
      first_ = first;
      claimed_ = result_.claims.word(first).claimed;
      compressed_ = result_.compressed.word(first).claimed;
      const StoredRefcounts::Word stored = result_.stored.word(first);
      leaked_ = stored.one | stored.more;
      unreadable_ = stored.unreadable;
    }
    const std::uint64_t bit = std::uint64_t{1} << (cluster % 64);
    if ((compressed_ & bit) != 0)
      return Use::compressed;
    if ((claimed_ & bit) != 0)
      return Use::data;
    if ((unreadable_ & bit) != 0)
      return Use::unknown;
    return (leaked_ & bit) != 0 ? Use::leaked : Use::free;
  }

  const CheckResult& result_;
  RangeBuilder& builder_;
  std::uint64_t first_ = ~std::uint64_t{0};
  std::uint64_t claimed_ = 0;
  std::uint64_t compressed_ = 0;
  std::uint64_t leaked_ = 0;
  std::uint64_t unreadable_ = 0;
  std::uint64_t next_claimed_ = 0;
  std::uint64_t next_stored_ = 0;
};

}  // namespace

std::string_view to_string(const LayoutRange& range) {
  return name_of(range.use, range.structure);
}

std::string_view to_string(const LayoutTotal& total) {
  return name_of(total.use, total.structure);
}

std::vector<LayoutTotal> layout(const CheckResult& result, std::uint64_t cluster_size,
                                std::uint64_t file_size,
                                const std::function<void(const LayoutRange&)>& consume) {
  RangeBuilder builder(cluster_size, file_size, consume);
  DataWalk data(result, builder);
  std::uint64_t at = 0;
  for (const Owner& owner : result.owners) {
    if (owner.first > at)
      data.walk(at, owner.first);
    at = std::max(at, owner.first);
    builder.add_until(owner.first + owner.count, Use::structure, owner.structure);
    at = std::max(at, owner.first + owner.count);
  }
  if (const std::uint64_t clusters = divide_up(file_size, cluster_size); at < clusters)
    data.walk(at, clusters);
  return builder.finish();
}

}  // namespace coldchain::check
