// SPDX-License-Identifier: MIT
#include <coldchain/base/text.hpp>
#include <coldchain/report/deps_report.hpp>
#include <coldchain/report/json_writer.hpp>
#include <coldchain/report/style.hpp>

#include <fmt/format.h>

namespace coldchain::report {

namespace {

std::string link_text(const graph::Dependent& image) {
  if (!image.is_direct)
    return "through " + to_terminal(image.through);
  return image.is_data_file ? "its data file" : "its backing file";
}

std::string verdict(const DepsAnswer& answer) {
  const std::string image = to_terminal(answer.image);
  const std::size_t count = answer.dependents.images.size();
  if (count == 1)
    return fmt::format("1 image depends on '{}'.", image);
  if (count != 0)
    return fmt::format("{} images depend on '{}'.", count, image);
  if (answer.dependents.is_complete())
    return fmt::format("No image in the searched folders depends on '{}'.", image);
  return fmt::format("No image that was read depends on '{}', but not all could be read.", image);
}

}  // namespace

Result<void> write_deps_text(const DepsAnswer& answer, const Sink& sink) {
  using enum Table::Align;
  Table table({"IMAGE", "DEPENDS ON IT AS"}, {left, left});
  for (const graph::Dependent& image : answer.dependents.images)
    table.add({to_terminal(image.path), link_text(image)});
  std::string out = answer.dependents.images.empty() ? "" : table.text({});
  for (const Error& error : answer.dependents.unreadable)
    out += fmt::format("not read: {}\n", error.message);
  for (const Error& error : answer.dependents.unfollowed)
    out += fmt::format("not followed: {}\n", error.message);
  out += verdict(answer) + "\nSearched:";
  for (const std::string& folder : answer.searched)
    out += fmt::format(" '{}'", to_terminal(folder));
  out += "\n";
  if (answer.is_own_folder)
    out +=
        "Only the folder of the image was searched. Images in other folders may depend on it: "
        "'--scan DIR' searches DIR.\n";
  return sink(out);
}

Result<void> write_deps_json(const DepsAnswer& answer, const Sink& sink) {
  JsonWriter json;
  json.begin_object().member("schema", "coldchain.deps").member("version", 1);
  json.name_member("image", answer.image);
  json.key("searched").begin_array();
  for (const std::string& folder : answer.searched)
    json.begin_object().name_member("path", folder).end_object();
  json.end_array();
  json.member("own-folder-only", answer.is_own_folder);
  json.key("dependents").begin_array();
  for (const graph::Dependent& image : answer.dependents.images) {
    json.begin_object().name_member("path", image.path).member("direct", image.is_direct);
    json.name_member("through", image.through)
        .member("link", image.is_data_file ? "data-file" : "backing")
        .end_object();
  }
  json.end_array();
  const auto write_errors = [&](const char* name, const std::vector<Error>& errors) {
    json.key(name).begin_array();
    for (const Error& error : errors)
      json.value(error.message);
    json.end_array();
  };
  write_errors("unreadable", answer.dependents.unreadable);
  write_errors("unfollowed", answer.dependents.unfollowed);
  json.member("complete", answer.dependents.is_complete()).end_object();
  return sink(json.take() + "\n");
}

}  // namespace coldchain::report
