#include "transformer.h"

#include "../common/transformer.h"

namespace parvis::cpu {

Status CpuTransformer::load(std::shared_ptr<Threads> threads, const CheckpointFile& file,
                            const std::vector<WeightSource>& weights, const TransformerModel& m, Precision precision,
                            const Cancel& cancel, std::shared_ptr<Transformer>& out) {
  auto t = std::make_shared<CpuTransformer>();
  t->model_ = m;
  t->numbers_ = numbersOf(precision);
  t->threads_ = std::move(threads);
  Tensors source;
  if (Status s = source.open(file, weights, cancel); !s.ok()) return s;
  Loader loader(&source, precision);
  planTransformer(loader, *t, m);
  Status s = loader.load(t->memory_, *t->threads_, cancel);
  if (s.ok()) out = std::move(t);
  return s;
}

}  // namespace parvis::cpu
