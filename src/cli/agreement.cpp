// SPDX-License-Identifier: MIT
#include "agreement.hpp"

#include <algorithm>
#include <array>

#include <coldchain/base/text.hpp>
#include <coldchain/base/try.hpp>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace coldchain::cli {

namespace {

using Json = nlohmann::json;

constexpr std::array<std::string_view, 5> planned_verbs = {"allocate", "commit", "pull", "rebase",
                                                           "repair"};

// No plan is so deep; whoever reads one recurses.
constexpr unsigned most_depth = 32;

// No verb takes so many.
constexpr std::size_t most_words = 1024;

bool is_deep(std::string_view text) {
  unsigned depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '"')
      in_string = !in_string;
    else if (text[i] == '\\' && in_string)
      ++i;
    else if (!in_string && (text[i] == '[' || text[i] == '{') && ++depth > most_depth)
      return true;
    else if (!in_string && (text[i] == ']' || text[i] == '}') && depth != 0)
      --depth;
  }
  return false;
}

Json parse(std::string_view text, const Json::parser_callback_t& keeps = nullptr) {
  return is_deep(text) ? Json(Json::value_t::discarded) : Json::parse(text, keeps, false);
}

// Keeps the members with that name in the document, and in its member "coldchain": what else a
// plan has takes no memory.
Json::parser_callback_t only(std::string_view name) {
  return [name](int depth, Json::parse_event_t event, Json& parsed) {
    if (event != Json::parse_event_t::key)
      return true;
    const auto& key = parsed.get_ref<const std::string&>();
    return (depth == 1 && (key == name || key == "coldchain")) || (depth == 2 && key == name);
  };
}

Error no_plan(std::string_view why) {
  return {ErrorCode::corrupt,
          fmt::format("is not a plan: {}; 'coldchain plan VERB --output=json' writes one", why), 0};
}

std::string shown(const Json& document, const Json::json_pointer& place) {
  constexpr std::size_t most = 80;
  if (!document.contains(place))
    return "missing";
  const std::string text = document[place].dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= most ? text : text.substr(0, most) + "...";
}

// Where two documents differ first: as deep down as both have it.
Json::json_pointer first_difference(const Json& one, const Json& other) {
  const auto differs = [&](const auto& key) {
    return !one.contains(key) || !other.contains(key) || one[key] != other[key];
  };
  if (one.is_object() && other.is_object()) {
    for (const Json* document : {&one, &other}) {
      for (const auto& [key, value] : document->items()) {
        if (!differs(key))
          continue;
        const Json::json_pointer place = Json::json_pointer() / key;
        return one.contains(key) && other.contains(key)
                   ? place / first_difference(one[key], other[key])
                   : place;
      }
    }
  }
  if (one.is_array() && other.is_array() && one.size() == other.size()) {
    for (std::size_t i = 0; i < one.size(); ++i) {
      if (one[i] != other[i])
        return Json::json_pointer() / i / first_difference(one[i], other[i]);
    }
  }
  return Json::json_pointer();
}

// How much storage a file has may change by itself.
void forget_storage(Json& plan) {
  const auto layers = plan.is_object() ? plan.find("not-needed") : plan.end();
  if (layers == plan.end() || !layers->is_array())
    return;
  for (Json& layer : *layers) {
    if (layer.is_object())
      layer.erase("allocated");
  }
}

}  // namespace

Result<Agreement> read_agreement(std::string text) {
  const Json document = parse(text, only("command"));
  if (!document.is_object())
    return fail(no_plan("no JSON object"));
  const auto nested = document.find("coldchain");  // in what qemu-img would print
  const Json& ours = nested != document.end() && nested->is_object() ? *nested : document;
  const auto command = ours.find("command");
  if (command == ours.end() || !command->is_array() || command->empty() ||
      !std::all_of(command->begin(), command->end(),
                   [](const Json& word) { return word.is_string(); }))
    return fail(
        no_plan("it has no \"command\", an array of strings, which a plan with names that are not "
                "UTF-8 lacks"));
  if (command->size() > most_words)
    return fail(no_plan(fmt::format("its \"command\" has {} words", command->size())));
  Agreement agreement;
  agreement.command = command->get<std::vector<std::string>>();
  agreement.plan = std::move(text);
  if (std::find(planned_verbs.begin(), planned_verbs.end(), agreement.command.front()) ==
      planned_verbs.end())
    return fail(no_plan(fmt::format("'{}' cannot be planned; these verbs can: {}",
                                    to_terminal(agreement.command.front()),
                                    fmt::join(planned_verbs, ", "))));
  return agreement;
}

Result<void> check_agreed(const std::optional<Agreement>& agreement,
                          const std::function<Result<std::string>()>& plan) {
  if (!agreement)
    return {};
  const std::string text = TRY(plan());
  if (agreement->plan == text)
    return {};
  Json agreed = parse(agreement->plan);
  Json now = parse(text);
  forget_storage(agreed);
  forget_storage(now);
  if (agreed == now)
    return {};
  const Json::json_pointer place = first_difference(agreed, now);
  return fail(
      ErrorCode::refused,
      fmt::format("nothing was changed: {} is {} in the plan, but would be {} now: make a new plan",
                  to_terminal(place.to_string()), to_terminal(shown(agreed, place)),
                  to_terminal(shown(now, place))));
}

Result<void> check_agreed_digest(const std::optional<Agreement>& agreement,
                                 const edit::PlanDigest& digest, const std::string& operand) {
  if (!agreement)
    return {};
  const Json agreed = parse(agreement->plan, only("digest"));
  if (agreed.value("digest", Json()) == codec::to_hex(digest.sha256))
    return {};
  return fail(ErrorCode::refused,
              fmt::format("nothing was changed: the pending change is not the planned one; "
                          "'coldchain resume {}' continues it or, with --abandon, rolls it back",
                          operand));
}

}  // namespace coldchain::cli
