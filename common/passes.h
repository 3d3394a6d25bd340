// Passes in place of steps (Jacobi decoding). A draw depends on the seed, the token's index and the logits alone, so a
// token is a function of those before it. A pass runs the next steps of a sequence at once, the later ones on guesses
// of the tokens that the earlier ones draw. A step whose inputs turn out to be what was drawn is what it would have
// been alone: its tokens are final, and so are those of the first step behind it. What was drawn beyond that is the
// guess of the next pass.
#pragma once

#include <vector>

#include "parvis/status.h"
#include "parvis/step.h"
#include "steps.h"

namespace parvis {

// Rows of the longest plan that a session takes: one for each slot and two for each token, as methods need that write
// slots twice or draw by rows of their own, and some.
int maxPlanRows(const SessionOptions& options);

// The plan of a seat, and how far it has come.
struct PlannedSequence {
  SequencePlan plan;
  std::vector<int32_t> notBefore;  // [steps]: a pass that begins before that step cannot hold this one
  std::vector<int32_t> queries;    // [steps + 1]: rows before a step that run through the cross layers, and in all
  int done = 0;                    // steps
  int steps() const { return static_cast<int>(plan.ends.size()); }
  int rowsUpTo(int step) const { return step == 0 ? 0 : plan.ends[static_cast<size_t>(step) - 1]; }
  int streams() const { return plan.guidance == 1.0 ? 1 : 2; }
};

class Passes {
 public:
  Passes() = default;
  // maxTogether: rows of a stream beyond which a backend would sum up in another order; a pass has no guesses there.
  Passes(const TransformerModel& model, const SessionOptions& options, int maxTogether);

  // The seat must be taken.
  Status plan(int seat, SequencePlan plan);
  void clear(int seat);
  const PlannedSequence& planned(int seat) const { return all_[static_cast<size_t>(seat)]; }
  // Steps that are done: their tokens are final.
  int done(int seat) const { return planned(seat).done; }
  bool ended(int seat) const { return done(seat) == planned(seat).steps(); }
  void setDone(int seat, int steps) { all_[static_cast<size_t>(seat)].done = steps; }

  // The row runs through the cross layers.
  bool isQuery(const PlannedRow& row) const { return model_.crossLayers > 0 && row.slot < 0; }
  // Each part is of a seat of its own that has a plan.
  Status check(const std::vector<PassPart>& parts, const Seats& seats) const;
  // The end of a pass of one sequence that begins at step `base`, where nothing but the sequence itself limits it.
  int endOf(int seat, int base, int steps) const;
  // Checks all steps of the seat that are not done, one after another, as if they had run: no other step of the seat is
  // checked after that. For a backend that composes passes before it knows where a sequence stands.
  Status checkAhead(int seat, Seats& seats);

  // What the rows of the next pass would be, whatever is guessed.
  Step stepOf(const std::vector<PassPart>& parts);

  // The next steps of the parts as one step; it has no rows where all of them are at their end. Tokens that are read
  // and were never drawn are guessed: written to `tokens` [seats, tokens].
  Status compose(const std::vector<PassPart>& parts, Seats& seats, int32_t* tokens, Step& out);
  // Some rows of the step that was composed last read guesses.
  bool guesses() const { return guesses_; }
  // It has run, and `tokens` [seats, tokens] are those after it; they are not looked at where it had no guesses.
  void ran(const int32_t* tokens);
  // Tokens of steps that are not done become -1.
  void hide(int seat, int32_t* tokens) const;

 private:
  struct Running {
    int seat, end;  // steps `done` to `end` of the seat
  };
  bool holds(const PlannedSequence& s, int base, int step) const;
  void clear();  // what was composed last
  Step composed();
  void guess(const Running& part, Seats& seats, int32_t* tokens);
  void write();
  int ruleOf(const SamplingRule& rule);

  TransformerModel model_;
  SessionOptions o_;
  int maxTogether_ = 0;
  std::vector<PlannedSequence> all_;
  // Of the step that was composed last.
  std::vector<Running> running_;
  std::vector<Row> rows_;
  std::vector<Prediction> predictions_;
  std::vector<SamplingRule> rules_;
  std::vector<int32_t> read_;  // the tokens that its rows read, as they were: of each part, of all steps but its last
  bool guesses_ = false;
};

}  // namespace parvis
