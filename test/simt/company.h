// Sequences that run the same rows side by side, for programs that use sessions without TypeScript:
// lib/decoding/step.ts and lib/decoding/generation.ts do the same.
#pragma once

#include <cmath>
#include <memory>
#include <vector>

#include "../../include/parvis/backend.h"

namespace company {

// A row of one sequence, and the token that it predicts; -1: none.
struct Line {
  int32_t input, slot, row, column, sees, predicts;
};
using Table = std::vector<Line>;

// How all tokens are drawn.
struct Rule {
  parvis::Mode mode = parvis::Mode::sample;
  float guidanceScale = 1, temperature = 1;
  int topK = 0;
  float topP = 1;
};

struct Options {
  bool positions = false;  // a row's learned position is its slot
  std::vector<int32_t> classIds;
  std::vector<uint64_t> seeds;
  bool guided = false;
  int slots = 0, tokens = 0, maxRows = 0;  // of one sequence
  std::vector<int32_t> known;              // [sequences, tokens], or empty
  std::vector<int32_t> keepLogits;         // tokens whose logits are kept
  int sequences() const { return static_cast<int>(classIds.size()); }
  parvis::SessionOptions session() const {
    const int streamsEach = guided ? 2 : 1;
    return {sequences(),
            streamsEach,
            slots,
            tokens,
            sequences() * streamsEach * maxRows,
            static_cast<int>(keepLogits.size())};
  }
};

inline parvis::Status seated(parvis::Transformer& t, const Options& o, std::unique_ptr<parvis::Session>& session) {
  parvis::Status s = t.createSession(o.session(), session);
  for (int i = 0; i < o.sequences() && s.ok(); i++) {
    const size_t seat = static_cast<size_t>(i);
    parvis::Sequence sequence{o.classIds[seat], o.seeds[seat], {}};
    if (!o.known.empty()) sequence.known.assign(o.known.begin() + i * o.tokens, o.known.begin() + (i + 1) * o.tokens);
    s = session->enter(i, sequence);
  }
  return s;
}

inline parvis::Status step(parvis::Session& session, const Options& o, const Table& table, const Rule& rule,
                           const parvis::Cancel& cancel) {
  const int sequences = o.sequences(), streamsEach = o.guided ? 2 : 1, count = static_cast<int>(table.size());
  std::vector<parvis::Row> rows;
  std::vector<parvis::Prediction> predictions;
  for (int stream = 0; stream < streamsEach; stream++)
    for (int seat = 0; seat < sequences; seat++)
      for (const Line& l : table)
        rows.push_back({seat * streamsEach + stream,
                        l.input,
                        o.positions ? l.slot : -1,
                        {l.row < 0 ? -1 : l.slot % 3, l.row, l.column},
                        l.slot,
                        l.sees});
  for (int seat = 0; seat < sequences; seat++)
    for (int i = 0; i < count; i++) {
      const int32_t token = table[static_cast<size_t>(i)].predicts;
      if (token < 0) continue;
      int32_t kept = -1;
      for (size_t k = 0; k < o.keepLogits.size(); k++)
        if (o.keepLogits[k] == token) kept = static_cast<int32_t>(k);
      const int row = seat * count + i;
      predictions.push_back({row, o.guided ? sequences * count + row : -1, token, 0, kept, rule.guidanceScale});
    }
  const parvis::SamplingRule drawn{rule.mode, rule.temperature, rule.topK, rule.topP};
  std::vector<int32_t> failed;
  return session.step(
      {rows.data(), static_cast<int>(rows.size()), predictions.data(), static_cast<int>(predictions.size()), &drawn, 1},
      cancel, failed);
}

// The same steps as a plan, for one sequence. A token's first guess is the token before it.
inline parvis::SequencePlan planOf(const Options& o, const std::vector<Table>& tables, const Rule& rule) {
  parvis::SequencePlan plan;
  for (const Table& table : tables) {
    for (const Line& l : table)
      plan.rows.push_back({l.predicts,
                           l.input,
                           o.positions ? l.slot : -1,
                           {l.row < 0 ? -1 : l.slot % 3, l.row, l.column},
                           l.slot,
                           l.sees});
    plan.ends.push_back(static_cast<int32_t>(plan.rows.size()));
  }
  for (int32_t i = 0; i < o.tokens; i++) plan.guesses.push_back(i - 1);
  plan.rule = {rule.mode, rule.temperature, rule.topK, rule.topP};
  plan.guidance = o.guided ? static_cast<double>(rule.guidanceScale) : 1;
  return plan;
}

struct Results {
  parvis::Status status;
  std::vector<int32_t> tokens;
  std::vector<float> logProbs, logits;
};

inline parvis::Status readTokens(parvis::Session& session, const Options& o, std::vector<int32_t>& tokens) {
  tokens.resize(static_cast<size_t>(o.sequences() * o.tokens));
  parvis::Status s;
  for (int i = 0; i < o.sequences() && s.ok(); i++) s = session.readTokens(i, tokens.data() + i * o.tokens);
  return s;
}

inline Results run(parvis::Transformer& t, const Options& o, const std::vector<Table>& tables, const Rule& rule) {
  Results r;
  const parvis::Cancel cancel{false};
  std::unique_ptr<parvis::Session> session;
  r.status = seated(t, o, session);
  for (size_t i = 0; i < tables.size() && r.status.ok(); i++) r.status = step(*session, o, tables[i], rule, cancel);
  const size_t logits = o.keepLogits.size() * static_cast<size_t>(t.model().vocabulary);
  r.logProbs.resize(static_cast<size_t>(o.sequences() * o.tokens));
  r.logits.resize(static_cast<size_t>(o.sequences()) * logits);
  if (r.status.ok()) r.status = readTokens(*session, o, r.tokens);
  for (int i = 0; i < o.sequences() && r.status.ok(); i++) {
    r.status = session->readLogProbs(i, r.logProbs.data() + i * o.tokens);
    if (r.status.ok() && logits > 0)
      r.status = session->readLogits(i, r.logits.data() + static_cast<size_t>(i) * logits);
  }
  return r;
}

}  // namespace company
