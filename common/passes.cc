#include "passes.h"

#include <algorithm>
#include <cmath>

namespace parvis {

namespace {

Status invalid(std::string what) { return {Code::invalidOption, std::move(what)}; }

bool same(const SamplingRule& a, const SamplingRule& b) {
  return a.mode == b.mode && a.temperature == b.temperature && a.topK == b.topK && a.topP == b.topP;
}

}  // namespace

int maxPlanRows(const SessionOptions& o) {
  return static_cast<int>(std::min(o.slots + 2 * static_cast<int64_t>(o.tokens) + 64, int64_t{1} << 24));
}

Passes::Passes(const TransformerModel& model, const SessionOptions& options, int maxTogether)
    : model_(model), o_(options), maxTogether_(maxTogether) {
  all_.resize(static_cast<size_t>(o_.seats));
}

Status Passes::plan(int seat, SequencePlan plan) {
  const size_t rows = plan.rows.size(), tokens = static_cast<size_t>(o_.tokens);
  if (plan.ends.empty() || static_cast<size_t>(plan.ends.back()) != rows)
    return invalid("The steps of a plan must end with its rows.");
  for (size_t i = 0; i < plan.ends.size(); i++)
    if (plan.ends[i] <= (i == 0 ? 0 : plan.ends[i - 1])) return invalid("Each step of a plan needs rows.");
  if (rows > static_cast<size_t>(maxPlanRows(o_)))
    return invalid("A plan has at most " + std::to_string(maxPlanRows(o_)) + " rows.");
  if (!plan.shares.empty() && plan.shares.size() != rows) return invalid("A plan has a share for each row, or none.");
  if (!plan.guesses.empty() && plan.guesses.size() != tokens)
    return invalid("A plan has a guess for each token, or none.");
  for (const int32_t from : plan.guesses)
    if (from < -1 || from >= o_.tokens) return invalid("A guess of a plan is no token of the sequence.");
  for (const PlannedRow& row : plan.rows)
    if (row.token < -1 || row.token >= o_.tokens || row.slot >= o_.slots)
      return invalid("A row of a plan has a token or a slot outside the sequence.");
  if (!std::isfinite(plan.guidance)) return invalid("The guidance scale of a plan is not finite.");
  if (plan.guidance != 1.0 && o_.streamsEach != 2) return invalid("A guided plan needs two streams.");

  PlannedSequence& s = all_[static_cast<size_t>(seat)];
  s.plan = std::move(plan);
  s.done = 0;
  // A step that writes a slot or draws a token again begins its pass: who has read the former one is done by then.
  s.notBefore.assign(s.plan.ends.size(), 0);
  s.queries.assign(s.plan.ends.size() + 1, 0);
  std::vector<int32_t> writer(static_cast<size_t>(o_.slots), -1), drawer(tokens, -1);
  for (int step = 0, row = 0, queries = 0; step < s.steps(); step++) {
    for (; row < s.plan.ends[static_cast<size_t>(step)]; row++) {
      const PlannedRow& r = s.plan.rows[static_cast<size_t>(row)];
      int32_t& least = s.notBefore[static_cast<size_t>(step)];
      const auto mark = [&](int32_t& last) {
        if (last >= 0 && last != step) least = step;
        last = step;
      };
      if (r.slot >= 0) mark(writer[static_cast<size_t>(r.slot)]);
      if (r.token >= 0) mark(drawer[static_cast<size_t>(r.token)]);
      queries += isQuery(r) ? 1 : 0;
    }
    s.queries[static_cast<size_t>(step) + 1] = queries;
  }
  return {};
}

void Passes::clear(int seat) { all_[static_cast<size_t>(seat)] = {}; }

void Passes::clear() {
  running_.clear();
  rows_.clear();
  predictions_.clear();
  rules_.clear();
  read_.clear();
}

// ---- a pass -------------------------------------------------------------------------------------------------

Status Passes::check(const std::vector<PassPart>& parts, const Seats& seats) const {
  for (size_t i = 0; i < parts.size(); i++) {
    const PassPart& p = parts[i];
    if (Status s = seats.taken(p.seat); !s.ok()) return s;
    if (planned(p.seat).plan.ends.empty()) return invalid("Seat " + std::to_string(p.seat) + " has no plan.");
    if (p.steps < 1) return invalid("A pass has one step of a sequence, or more.");
    for (size_t other = 0; other < i; other++)
      if (parts[other].seat == p.seat) return invalid("Seat " + std::to_string(p.seat) + " is in a pass twice.");
  }
  return {};
}

// A pass from step `base` to step `step` can hold this one too.
bool Passes::holds(const PlannedSequence& s, int base, int step) const {
  return s.rowsUpTo(step + 1) - s.rowsUpTo(base) <= maxTogether_ && s.notBefore[static_cast<size_t>(step)] <= base;
}

int Passes::endOf(int seat, int base, int steps) const {
  const PlannedSequence& s = planned(seat);
  int end = std::min(base + 1, s.steps());
  while (end < s.steps() && end - base < steps && holds(s, base, end)) end++;
  return end;
}

Step Passes::composed() {
  return {rows_.data(),  static_cast<int>(rows_.size()), predictions_.data(), static_cast<int>(predictions_.size()),
          rules_.data(), static_cast<int>(rules_.size())};
}

Status Passes::checkAhead(int seat, Seats& seats) {
  PlannedSequence& s = all_[static_cast<size_t>(seat)];
  Status status;
  const int done = s.done;
  for (; s.done < s.steps() && status.ok(); s.done++) {
    clear();
    running_.push_back({seat, s.done + 1});
    write();
    const Step step = composed();
    status = seats.check(step);
    if (status.ok()) seats.ran(step);
  }
  s.done = done;
  return status;
}

Step Passes::stepOf(const std::vector<PassPart>& parts) {
  clear();
  for (const PassPart& p : parts) running_.push_back({p.seat, endOf(p.seat, done(p.seat), p.steps)});
  write();
  return composed();
}

Status Passes::compose(const std::vector<PassPart>& parts, Seats& seats, int32_t* tokens, Step& out) {
  if (Status s = check(parts, seats); !s.ok()) return s;
  clear();
  int free = o_.maxRows;
  for (const PassPart& p : parts) {
    const PlannedSequence& s = planned(p.seat);
    const int end = std::min(s.done + 1, s.steps());
    free -= (s.rowsUpTo(end) - s.rowsUpTo(s.done)) * s.streams();
    running_.push_back({p.seat, end});
  }
  // Everybody has its next step; what room is left is for guesses.
  guesses_ = false;
  for (size_t i = 0; i < parts.size(); i++) {
    const PlannedSequence& s = all_[static_cast<size_t>(parts[i].seat)];
    int& end = running_[i].end;
    const int64_t wanted = static_cast<int64_t>(s.done) + parts[i].steps;
    for (; end < wanted && end < s.steps(); end++) {
      const int more = (s.rowsUpTo(end + 1) - s.rowsUpTo(end)) * s.streams();
      if (more > free || !holds(s, s.done, end)) break;
      free -= more;
      guesses_ = true;
    }
    guess(running_[i], seats, tokens);
  }
  write();
  out = composed();
  return {};
}

// The tokens that later steps of the pass read: a first guess, or what the pass before has drawn.
void Passes::guess(const Running& part, Seats& seats, int32_t* tokens) {
  const PlannedSequence& s = all_[static_cast<size_t>(part.seat)];
  int32_t* const own = tokens + static_cast<ptrdiff_t>(part.seat) * o_.tokens;
  const int last = s.rowsUpTo(std::max(part.end - 1, s.done));
  for (int row = s.rowsUpTo(s.done); row < last; row++) {
    const int32_t token = s.plan.rows[static_cast<size_t>(row)].token;
    if (token < 0) continue;
    if (own[token] < 0) {
      const int32_t from = s.plan.guesses.empty() ? -1 : s.plan.guesses[static_cast<size_t>(token)];
      own[token] = from >= 0 && own[from] >= 0 && own[from] < model_.vocabulary ? own[from] : 0;
      seats.guessed(part.seat, token);
    }
    read_.push_back(own[token]);
  }
}

// As step.ts composes a step: the conditional rows of all parts, then the unconditional ones; with cross layers, rows
// without a slot come behind all others, in the same order.
void Passes::write() {
  size_t counts[2] = {}, guided[2] = {};
  const auto each = [&](auto&& visit) {
    for (const Running& part : running_) {
      const PlannedSequence& s = all_[static_cast<size_t>(part.seat)];
      for (int i = s.rowsUpTo(s.done); i < s.rowsUpTo(part.end); i++) visit(part, s.plan, static_cast<size_t>(i));
    }
  };
  each([&](const Running&, const SequencePlan& plan, size_t i) {
    const int kind = isQuery(plan.rows[i]) ? 1 : 0;
    counts[kind]++;
    if (plan.guidance != 1.0) guided[kind]++;
  });
  size_t at[2] = {0, counts[0] + guided[0]}, unconditional[2] = {counts[0], counts[0] + guided[0] + counts[1]};
  rows_.resize(counts[0] + guided[0] + counts[1] + guided[1]);
  each([&](const Running& part, const SequencePlan& plan, size_t i) {
    const PlannedRow& r = plan.rows[i];
    const int kind = isQuery(r) ? 1 : 0;
    const int32_t stream = part.seat * o_.streamsEach;
    const auto put = [&](size_t row, int32_t stream) {
      rows_[row] = {stream, r.input, r.position, {r.cell[0], r.cell[1], r.cell[2]}, r.slot, r.sees};
      return static_cast<int32_t>(row);
    };
    const int32_t row = put(at[kind]++, stream);
    const int32_t other = plan.guidance == 1.0 ? -1 : put(unconditional[kind]++, stream + 1);
    if (r.token < 0) return;
    predictions_.push_back({row, other, r.token, ruleOf(plan.rule), -1, plan.guidanceOf(i)});
  });
}

int Passes::ruleOf(const SamplingRule& rule) {
  const auto found = std::find_if(rules_.begin(), rules_.end(), [&](const SamplingRule& r) { return same(r, rule); });
  const auto index = static_cast<int32_t>(found - rules_.begin());
  if (found == rules_.end()) rules_.push_back(rule);
  return index;
}

// ---- what it has shown --------------------------------------------------------------------------------------

void Passes::ran(const int32_t* tokens) {
  size_t read = 0;
  for (const Running& part : running_) {
    PlannedSequence& s = all_[static_cast<size_t>(part.seat)];
    const int32_t* const own = tokens + static_cast<ptrdiff_t>(part.seat) * o_.tokens;
    const int first = s.done;
    bool isFinal = first < part.end;  // the step that is looked at read nothing but final tokens
    for (int step = first; step < part.end; step++) {
      s.done += isFinal ? 1 : 0;
      if (step + 1 == part.end) break;
      for (int row = s.rowsUpTo(step); row < s.rowsUpTo(step + 1); row++) {
        const int32_t token = s.plan.rows[static_cast<size_t>(row)].token;
        if (token >= 0 && own[token] != read_[read++]) isFinal = false;
      }
    }
  }
}

void Passes::hide(int seat, int32_t* tokens) const {
  const PlannedSequence& s = all_[static_cast<size_t>(seat)];
  for (size_t row = static_cast<size_t>(s.plan.ends.empty() ? 0 : s.rowsUpTo(s.done)); row < s.plan.rows.size(); row++)
    if (s.plan.rows[row].token >= 0) tokens[s.plan.rows[row].token] = -1;
}

}  // namespace parvis
