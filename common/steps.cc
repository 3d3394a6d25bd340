#include "steps.h"

#include <cmath>
#include <string>

namespace parvis {

static std::string text(int64_t n) { return std::to_string(n); }

Status checkSession(const TransformerModel& model, const SessionOptions& o) {
  if (o.classIds.empty() || o.seeds.size() != o.classIds.size() || o.slots < 1 || o.tokens < 1 || o.maxRows < 1)
    return {Code::invalidOption, "A session needs classes, as many seeds, slots, tokens and rows."};
  for (const int32_t c : o.classIds)
    if (c < 0 || c > model.classes) return {Code::invalidOption, "Class " + text(c) + " is outside 0.." + text(model.classes) + "."};
  const size_t tokens = o.classIds.size() * static_cast<size_t>(o.tokens);
  if (!o.known.empty() && o.known.size() != tokens) return {Code::invalidOption, "Known tokens: " + text(static_cast<int64_t>(tokens)) + " expected."};
  for (const int32_t t : o.known)
    if (t >= model.vocabulary) return {Code::invalidOption, "Token " + text(t) + " is outside 0.." + text(model.vocabulary - 1) + "."};
  for (const int32_t p : o.keepLogits)
    if (p < 0 || p >= o.tokens) return {Code::invalidOption, "Position " + text(p) + " is outside the sequence."};
  return {};
}

Known::Known(const SessionOptions& o) : missing_(static_cast<size_t>(o.tokens), o.known.empty() ? static_cast<int>(o.classIds.size()) : 0) {
  for (size_t i = 0; i < o.known.size(); i++) missing_[i % static_cast<size_t>(o.tokens)] += o.known[i] < 0;
}

Status checkRule(const StepRule& rule) {
  const bool good = rule.temperature >= 0 && rule.topP > 0 && std::isfinite(rule.guidanceScale) && rule.topK >= 0;
  return good ? Status{} : Status{Code::invalidOption, "The step's sampling rule has a value outside its range."};
}

Status checkStep(const TransformerModel& m, const SessionOptions& o, const Known& known, const Row* rows, int count, const StepRule& rule) {
  const auto bad = [](int i, const std::string& what) { return Status{Code::invalidOption, "Row " + text(i) + " of the step table: " + what + "."}; };
  if (count < 1 || count > o.maxRows) return {Code::invalidOption, "A step has 1.." + text(o.maxRows) + " rows, not " + text(count) + "."};
  if (Status s = checkRule(rule); !s.ok()) return s;
  std::vector<bool> predicted(static_cast<size_t>(o.tokens));
  for (int i = 0; i < count; i++) {
    const Row& r = rows[i];
    if (r.predicts < -1 || r.predicts >= o.tokens) return bad(i, "predicts position " + text(r.predicts));
    if (r.predicts >= 0) {
      if (predicted[static_cast<size_t>(r.predicts)]) return bad(i, "predicts position " + text(r.predicts) + " a second time");
      predicted[static_cast<size_t>(r.predicts)] = true;
    }
    if (r.input < -1 - m.transitions || r.input >= o.tokens) return bad(i, "input " + text(r.input) + " does not exist");
    if (r.slot < 0 || r.slot >= o.slots) return bad(i, "slot " + text(r.slot) + " is outside the cache");
    if (r.sees < 1 || r.sees > o.slots) return bad(i, "sees " + text(r.sees) + " slots of " + text(o.slots));
    if ((r.row < 0) != (r.column < 0) || r.row >= maxPosition || r.column >= maxPosition) return bad(i, "bad rotation cell");
    if (r.input >= 0 && !known.all(r.input)) return bad(i, "reads token " + text(r.input) + ", which is not known yet");
    if (rule.mode == StepRule::Mode::score && r.predicts >= 0 && !known.all(r.predicts)) return bad(i, "scores token " + text(r.predicts) + ", which is not known");
  }
  return {};
}

Angle rotationAngle(const TransformerModel& m, int position, int k) {
  const float frequency = static_cast<float>(1.0 / std::pow(static_cast<double>(m.ropeBase), static_cast<double>(static_cast<float>(2 * k) / static_cast<float>(m.headSize / 2))));
  const float angle = static_cast<float>(position) * frequency;
  return {static_cast<float>(std::cos(static_cast<double>(angle))), static_cast<float>(std::sin(static_cast<double>(angle)))};
}

Status notFinite() {
  return {Code::nonFinite, "The transformer computed NaN or infinite logits: the checkpoint's weights are damaged, or were not trained in this precision."};
}

}  // namespace parvis
