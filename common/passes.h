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

class Passes {
 public:
  Passes() = default;
  // maxTogether: rows of a stream beyond which a backend would sum up in another order; a pass has no guesses there.
  Passes(const TransformerModel& model, const SessionOptions& options, int maxTogether);

  // The seat must be taken.
  Status plan(int seat, SequencePlan plan);
  void clear(int seat);
  // Steps that are done: their tokens are final.
  int done(int seat) const { return all_[static_cast<size_t>(seat)].done; }

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
  struct Sequence {
    SequencePlan plan;
    std::vector<int32_t> notBefore;  // [steps]: a pass that begins before that step cannot hold this one
    int done = 0;
  };
  struct Running {
    int seat, end;  // steps `done` to `end` of the seat
  };
  int rowsUpTo(const Sequence& s, int step) const { return step == 0 ? 0 : s.plan.ends[static_cast<size_t>(step) - 1]; }
  void guess(const Running& part, Seats& seats, int32_t* tokens);
  void write();
  int ruleOf(const SamplingRule& rule);

  TransformerModel model_;
  SessionOptions o_;
  int maxTogether_ = 0;
  std::vector<Sequence> all_;
  // Of the step that was composed last.
  std::vector<Running> running_;
  std::vector<Row> rows_;
  std::vector<Prediction> predictions_;
  std::vector<SamplingRule> rules_;
  std::vector<int32_t> read_;  // the tokens that its rows read, as they were: of each part, of all steps but its last
  bool guesses_ = false;
};

}  // namespace parvis
