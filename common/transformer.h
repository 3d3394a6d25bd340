// Which tensors of a checkpoint a transformer has, and of what shape: written once, for the loaders of both backends. Their
// `plan` has matrix, gateUp, table and vector; their transformer the members that are named here.
#pragma once

#include <string>

#include "parvis/model.h"

namespace parvis {

template <class Plan, class Transformer>
void planTransformer(Plan& plan, Transformer& t, const TransformerModel& m) {
  plan.table(t.classes_, "cls_embedding.embedding_table.weight", m.classes + 1, m.dim);
  plan.table(t.tokens_, "tok_embeddings.weight", m.vocabulary, m.dim);
  if (m.transitions > 0) plan.table(t.transitions_, "spe_tok_embeddings.special_embeddings.weight", m.transitions, m.dim);
  const int width = m.heads * m.headSize;
  t.layers_.resize(static_cast<size_t>(m.layers));
  for (int i = 0; i < m.layers; i++) {
    auto& l = t.layers_[static_cast<size_t>(i)];
    const std::string name = "layers." + std::to_string(i) + ".";
    plan.vector(l.attentionNorm, name + "attention_norm.weight", {m.dim}, true);
    plan.matrix(l.qkv, name + "attention.wqkv.weight", width + 2 * m.kvHeads * m.headSize, m.dim);
    plan.matrix(l.wo, name + "attention.wo.weight", m.dim, width);
    plan.vector(l.feedForwardNorm, name + "ffn_norm.weight", {m.dim}, true);
    plan.gateUp(l.gateUp, name + "feed_forward.w1.weight", name + "feed_forward.w3.weight", m.feedForward, m.dim);
    plan.matrix(l.down, name + "feed_forward.w2.weight", m.dim, m.feedForward);
  }
  plan.vector(t.norm_, "norm.weight", {m.dim}, true);
  plan.matrix(t.output_, "output.weight", m.vocabulary, m.dim);
}

}  // namespace parvis
