#include "transformer.h"

namespace parvis::cpu {

Status CpuTransformer::load(std::shared_ptr<Threads> threads, const std::string& file, const std::vector<TensorSource>& tensors,
                            const TransformerModel& m, Precision precision, const Cancel& cancel, std::shared_ptr<Transformer>& out) {
  auto t = std::make_shared<CpuTransformer>();
  t->model_ = m;
  t->element_ = precision == Precision::float32 ? Element::float32 : Element::bfloat16;
  t->threads_ = std::move(threads);
  t->layers_.resize(m.layers);
  Tensors weights;
  if (Status s = weights.open(file, tensors); !s.ok()) return s;
  Loader loader(weights, t->element_);
  loader.table(t->classes_, "cls_embedding.embedding_table.weight", m.classes + 1, m.dim);
  loader.table(t->tokens_, "tok_embeddings.weight", m.vocabulary, m.dim);
  if (m.transitions > 0) loader.table(t->transitions_, "spe_tok_embeddings.special_embeddings.weight", m.transitions, m.dim);
  const int width = m.heads * m.headSize;
  for (int i = 0; i < m.layers; i++) {
    Layer& l = t->layers_[i];
    const std::string name = "layers." + std::to_string(i) + ".";
    loader.vector(l.attentionNorm, name + "attention_norm.weight", {m.dim}, true);
    loader.matrix(l.qkv, name + "attention.wqkv.weight", width + 2 * m.kvHeads * m.headSize, m.dim);
    loader.matrix(l.wo, name + "attention.wo.weight", m.dim, width);
    loader.vector(l.feedForwardNorm, name + "ffn_norm.weight", {m.dim}, true);
    loader.gateUp(l.gateUp, name + "feed_forward.w1.weight", name + "feed_forward.w3.weight", m.feedForward, m.dim);
    loader.matrix(l.down, name + "feed_forward.w2.weight", m.dim, m.feedForward);
  }
  loader.vector(t->norm_, "norm.weight", {m.dim}, true);
  loader.matrix(t->output_, "output.weight", m.vocabulary, m.dim);
  Status s = loader.load(t->memory_, *t->threads_, cancel);
  if (s.ok()) out = std::move(t);
  return s;
}

}  // namespace parvis::cpu
