#include "steps.h"

#include <algorithm>
#include <cmath>

namespace parvis {

namespace {

std::string text(int64_t n) { return std::to_string(n); }

Status invalid(std::string what) { return {Code::invalidOption, std::move(what)}; }

Status badRow(int i, const std::string& what) { return invalid("Row " + text(i) + " of the step: " + what + "."); }

Status badPrediction(int i, const std::string& what) {
  return invalid("Prediction " + text(i) + " of the step: " + what + ".");
}

bool valid(const SamplingRule& r) {
  return (r.mode == Mode::sample || r.mode == Mode::score || r.mode == Mode::gumbel) && r.temperature >= 0 &&
         r.topP > 0 && r.topK >= 0;
}

}  // namespace

Status checkSession(const TransformerModel&, const SessionOptions& o) {
  if (o.seats < 1 || o.slots < 1 || o.tokens < 1 || o.maxRows < 1 || o.kept < 0)
    return invalid("A session needs seats, slots, tokens and rows.");
  if (o.streamsEach != 1 && o.streamsEach != 2) return invalid("A seat has one stream or two.");
  return {};
}

int layerRows(const TransformerModel& m, const Step& step) {
  if (m.crossLayers == 0) return step.rowCount;
  int rows = 0;
  while (rows < step.rowCount && step.rows[rows].slot >= 0) rows++;
  return rows;
}

void groupsOf(const Step& step, int begin, int end, std::vector<Group>& out) {
  out.clear();
  for (int i = begin; i < end; i++) {
    if (out.empty() || out.back().stream != step.rows[i].stream) out.push_back({step.rows[i].stream, i - begin, 0});
    out.back().count++;
  }
}

// ---- seats --------------------------------------------------------------------------------------------------

Seats::Seats(const TransformerModel& model, const SessionOptions& o) : model_(model), o_(o) {
  const size_t seats = static_cast<size_t>(o.seats), streams = static_cast<size_t>(o.streams());
  all_.resize(seats);
  streams_.resize(streams);
  for (Stream& s : streams_) s.written.resize(static_cast<size_t>(o.slots));
  seen_.resize(streams);
  queried_.resize(streams);
  slots_.resize(streams * static_cast<size_t>(o.slots));
  tokens_.resize(seats * static_cast<size_t>(o.tokens));
}

Status Seats::taken(int seat) const {
  if (seat < 0 || seat >= o_.seats) return invalid("Seat " + text(seat) + " is outside 0.." + text(o_.seats - 1) + ".");
  return all_[static_cast<size_t>(seat)].taken ? Status{} : invalid("Nobody sits in seat " + text(seat) + ".");
}

Status Seats::enter(int seat, const Sequence& sequence) {
  if (seat < 0 || seat >= o_.seats) return invalid("Seat " + text(seat) + " is outside 0.." + text(o_.seats - 1) + ".");
  Seat& s = all_[static_cast<size_t>(seat)];
  if (s.taken) return invalid("Seat " + text(seat) + " is taken.");
  if (sequence.classId < 0 || sequence.classId > model_.classes)
    return invalid("Class " + text(sequence.classId) + " is outside 0.." + text(model_.classes) + ".");
  const std::vector<int32_t>& known = sequence.known;
  if (!known.empty() && known.size() != static_cast<size_t>(o_.tokens))
    return invalid("Known tokens: " + text(o_.tokens) + " expected.");
  const int tokens = model_.vocabulary + model_.textTokens;
  for (const int32_t t : known)
    if (t >= tokens) return invalid("Token " + text(t) + " is outside 0.." + text(tokens - 1) + ".");
  s.taken = true;
  s.failed = false;
  s.sequence = {sequence.classId, sequence.seed, {}};
  s.known.assign(static_cast<size_t>(o_.tokens), false);
  s.text.assign(static_cast<size_t>(model_.textTokens > 0 ? o_.tokens : 0), false);
  for (size_t i = 0; i < known.size(); i++) s.known[i] = known[i] >= 0;
  for (size_t i = 0; i < std::min(known.size(), s.text.size()); i++) s.text[i] = known[i] >= model_.vocabulary;
  for (int k = 0; k < o_.streamsEach; k++) {
    Stream& stream = streams_[static_cast<size_t>(seat * o_.streamsEach + k)];
    std::fill(stream.written.begin(), stream.written.end(), false);
    stream.filled = 0;
    stream.verified = true;
  }
  return {};
}

Status Seats::leave(int seat) {
  if (Status s = taken(seat); !s.ok()) return s;
  Seat& s = all_[static_cast<size_t>(seat)];
  s.taken = false;
  s.dirty |= s.failed;
  for (int k = 0; k < o_.streamsEach; k++)
    s.dirty |= !streams_[static_cast<size_t>(seat * o_.streamsEach + k)].verified;
  return {};
}

std::vector<int32_t> Seats::failed() const {
  std::vector<int32_t> seats;
  for (int i = 0; i < o_.seats; i++)
    if (all_[static_cast<size_t>(i)].taken && failed(i)) seats.push_back(i);
  return seats;
}

// ---- a step -------------------------------------------------------------------------------------------------

Status Seats::checkRow(const Step& step, int i) const {
  const Row& r = step.rows[i];
  if (r.stream < 0 || r.stream >= o_.streams() || !all_[static_cast<size_t>(seatOf(r.stream))].taken)
    return badRow(i, "nobody sits in stream " + text(r.stream));
  if (r.input < -1 - model_.specials || r.input >= o_.tokens)
    return badRow(i, "input " + text(r.input) + " does not exist");
  if (r.input >= 0 && !all_[static_cast<size_t>(seatOf(r.stream))].known[static_cast<size_t>(r.input)])
    return badRow(i, "reads token " + text(r.input) + ", which is not known yet");
  if (r.position < -1 || r.position >= model_.positions)
    return badRow(i, "learned position " + text(r.position) + " does not exist");
  for (const int32_t c : r.cell)
    if (c < -1 || c >= maxPosition) return badRow(i, "bad rotation cell");
  if (r.slot < -1 || r.slot >= o_.slots) return badRow(i, "slot " + text(r.slot) + " is outside the cache");
  if (r.sees < 1 || r.sees > o_.slots) return badRow(i, "sees " + text(r.sees) + " slots of " + text(o_.slots));
  return {};
}

Status Seats::checkPrediction(const Step& step, int i) {
  const Prediction& p = step.predictions[i];
  if (p.row < 0 || p.row >= step.rowCount) return badPrediction(i, "row " + text(p.row) + " does not exist");
  if (p.unconditional < -1 || p.unconditional >= step.rowCount)
    return badPrediction(i, "row " + text(p.unconditional) + " does not exist");
  if (model_.crossLayers > 0 &&
      (step.rows[p.row].slot >= 0 || (p.unconditional >= 0 && step.rows[p.unconditional].slot >= 0)))
    return badPrediction(i, "is of a row with a slot, and this model predicts by rows without one");
  // A backend may change the logits of a row while it draws.
  for (const int32_t row : {p.row, p.unconditional}) {
    if (row < 0) continue;
    if (predicting_[static_cast<size_t>(row)] == now_)
      return badPrediction(i, "is of row " + text(row) + ", which serves another one too");
    predicting_[static_cast<size_t>(row)] = now_;
  }
  const int seat = seatOf(step.rows[p.row].stream);
  if (p.unconditional >= 0 && seatOf(step.rows[p.unconditional].stream) != seat)
    return badPrediction(i, "is guided by a row of another seat");
  if (p.rule < 0 || p.rule >= step.ruleCount) return badPrediction(i, "rule " + text(p.rule) + " does not exist");
  if (p.kept < -1 || p.kept >= o_.kept)
    return badPrediction(i, "place " + text(p.kept) + " of kept logits does not exist");
  if (!std::isfinite(p.guidance)) return badPrediction(i, "its guidance scale is not finite");
  if (p.token < 0 || p.token >= o_.tokens) return badPrediction(i, "token " + text(p.token) + " does not exist");
  uint32_t& mark = tokens_[static_cast<size_t>(seat) * static_cast<size_t>(o_.tokens) + static_cast<size_t>(p.token)];
  if (mark == now_) return badPrediction(i, "predicts token " + text(p.token) + " a second time");
  mark = now_;
  if (step.rules[p.rule].mode == Mode::score && !all_[static_cast<size_t>(seat)].known[static_cast<size_t>(p.token)])
    return badPrediction(i, "scores token " + text(p.token) + ", which is not known");
  if (const std::vector<bool>& isText = all_[static_cast<size_t>(seat)].text;
      !isText.empty() && isText[static_cast<size_t>(p.token)])
    return badPrediction(i, "predicts token " + text(p.token) + ", which is text");
  return {};
}

// The prefix of slots that are written, by the rows of this step too.
int Seats::fill(int stream) const {
  const Stream& s = streams_[static_cast<size_t>(stream)];
  const size_t base = static_cast<size_t>(stream) * static_cast<size_t>(o_.slots);
  size_t filled = static_cast<size_t>(s.filled);
  while (filled < s.written.size() && (slots_[base + filled] == now_ || s.written[filled])) filled++;
  return static_cast<int>(filled);
}

Status Seats::checkRows(const Step& step, int begin, int end, std::vector<uint32_t>& seen) {
  for (int first = begin, next = begin; first < end; first = next) {
    const int32_t stream = step.rows[first].stream;
    for (next = first; next < end && step.rows[next].stream == stream; next++) {
      if (Status s = checkRow(step, next); !s.ok()) return s;
      if (step.rows[next].slot < 0) continue;
      uint32_t& mark = slots_[static_cast<size_t>(stream) * static_cast<size_t>(o_.slots) +
                              static_cast<size_t>(step.rows[next].slot)];
      if (mark == now_) return badRow(next, "slot " + text(step.rows[next].slot) + " is written by another row too");
      mark = now_;
    }
    uint32_t& mark = seen[static_cast<size_t>(stream)];
    if (mark == now_) return badRow(first, "the rows of stream " + text(stream) + " do not follow each other");
    mark = now_;
    const int filled = fill(stream);
    for (int i = first; i < next; i++)
      if (step.rows[i].sees > filled)
        return badRow(i, "sees " + text(step.rows[i].sees) + " slots, of which " + text(filled) + " are written");
  }
  return {};
}

Status Seats::check(const Step& step) {
  if (step.rowCount < 1 || step.rowCount > o_.maxRows)
    return invalid("A step has 1.." + text(o_.maxRows) + " rows, not " + text(step.rowCount) + ".");
  if (step.predictionCount > step.rowCount) return invalid("A step has more predictions than rows.");
  for (int i = 0; i < step.ruleCount; i++)
    if (!valid(step.rules[i])) return invalid("A sampling rule of the step has a value outside its range.");
  now_++;
  if (predicting_.size() < static_cast<size_t>(step.rowCount)) predicting_.resize(static_cast<size_t>(step.rowCount));
  const int inLayers = layerRows(model_, step);
  if (Status s = checkRows(step, 0, inLayers, seen_); !s.ok()) return s;
  for (int i = inLayers; i < step.rowCount; i++)
    if (step.rows[i].slot >= 0) return badRow(i, "has a slot and comes behind rows without one");
  if (Status s = checkRows(step, inLayers, step.rowCount, queried_); !s.ok()) return s;
  for (int i = 0; i < step.predictionCount; i++)
    if (Status s = checkPrediction(step, i); !s.ok()) return s;
  return {};
}

void Seats::ran(const Step& step) {
  for (int first = 0, end = 0; first < step.rowCount; first = end) {
    Stream& stream = streams_[static_cast<size_t>(step.rows[first].stream)];
    for (end = first; end < step.rowCount && step.rows[end].stream == step.rows[first].stream; end++)
      if (step.rows[end].slot >= 0) stream.written[static_cast<size_t>(step.rows[end].slot)] = true;
    while (stream.filled < o_.slots && stream.written[static_cast<size_t>(stream.filled)]) stream.filled++;
    stream.verified = false;
  }
  const auto verify = [&](int row) {
    Stream& stream = streams_[static_cast<size_t>(step.rows[row].stream)];
    stream.verified |= step.rows[row].sees == stream.filled;
  };
  for (int i = 0; i < step.predictionCount; i++) {
    const Prediction& p = step.predictions[i];
    verify(p.row);
    if (p.unconditional >= 0) verify(p.unconditional);
    if (step.rules[p.rule].mode != Mode::score)
      all_[static_cast<size_t>(seatOf(step.rows[p.row].stream))].known[static_cast<size_t>(p.token)] = true;
  }
}

void Seats::broke(const Step& step) {
  for (int i = 0; i < step.rowCount; i++) soil(seatOf(step.rows[i].stream));
}

// ---- rotation -----------------------------------------------------------------------------------------------

int rotationAxis(const TransformerModel& m, int pair) {
  for (int axis = 0; axis < 3; axis++) {
    if (pair < m.rotationPairs[axis]) return axis;
    pair -= m.rotationPairs[axis];
  }
  return -1;
}

Angle rotationAngle(const TransformerModel& m, int position, int pair) {
  // The pairs of each axis count their own frequencies.
  const int axis = rotationAxis(m, pair);
  for (int before = 0; before < axis; before++) pair -= m.rotationPairs[before];
  const float exponent = static_cast<float>(2 * pair) / static_cast<float>(2 * m.rotationPairs[axis]);
  const double power = std::pow(static_cast<double>(m.ropeBase), static_cast<double>(exponent));
  const float angle = static_cast<float>(position) * static_cast<float>(1.0 / power);
  return {static_cast<float>(std::cos(static_cast<double>(angle))),
          static_cast<float>(std::sin(static_cast<double>(angle)))};
}

Status notFinite() {
  return {Code::nonFinite,
          "The transformer computed NaN or infinite logits: the checkpoint's weights are damaged, or were not trained "
          "in this precision."};
}

}  // namespace parvis
