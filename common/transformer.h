// Which weights a transformer has, and of what shape: written once, for the loaders of both backends. Their `plan` has
// matrix, gateUp, table and vector; their transformer the members that are named here.
#pragma once

#include <string>

#include "parvis/model.h"

namespace parvis {

template <class Plan, class Transformer>
void planTransformer(Plan& plan, Transformer& t, const TransformerModel& m) {
  const auto norm = [&](auto& to, const std::string& role, NormKind kind) {
    plan.vector(to.weight, role + ".weight", {m.dim}, true);
    if (kind == NormKind::layer) plan.vector(to.bias, role + ".bias", {m.dim}, true);
  };
  const auto projection = [&](auto& to, const std::string& role, int outputs, int inputs) {
    plan.matrix(to, role + ".weight", outputs, inputs);
    if (m.bias) plan.vector(to.bias, role + ".bias", {outputs}, true);
  };
  plan.table(t.classes_, "classes", m.classes + 1, m.dim);
  plan.table(t.tokens_, "tokens", m.vocabulary + m.textTokens, m.dim);
  if (m.specials > 0) plan.table(t.specials_, "specials", m.specials, m.dim);
  if (m.positions > 0) plan.table(t.positions_, "positions", m.positions, m.dim);
  if (m.embeddingNorm) norm(t.embeddingNorm_, "embeddingNorm", NormKind::layer);
  const int width = m.heads * m.headSize;
  t.layers_.resize(static_cast<size_t>(m.layers + m.crossLayers));
  for (int i = 0; i < m.layers + m.crossLayers; i++) {
    auto& l = t.layers_[static_cast<size_t>(i)];
    const bool cross = i >= m.layers;
    const std::string layer =
        cross ? "crossLayers." + std::to_string(i - m.layers) + "." : "layers." + std::to_string(i) + ".";
    norm(l.attentionNorm, layer + "attentionNorm", m.norm);
    if (cross) projection(l.qkv, layer + "queries", width, m.dim);
    else projection(l.qkv, layer + "qkv", width + 2 * m.kvHeads * m.headSize, m.dim);
    projection(l.attentionOutput, layer + "attentionOutput", m.dim, width);
    norm(l.feedForwardNorm, layer + "feedForwardNorm", m.norm);
    if (m.activation == Activation::swiglu)
      plan.gateUp(l.up, layer + "gate.weight", layer + "up.weight", m.feedForward, m.dim);
    else projection(l.up, layer + "up", m.feedForward, m.dim);
    projection(l.down, layer + "down", m.dim, m.feedForward);
  }
  if (m.crossLayers > 0) {
    norm(t.sharedNorm_, "shared.norm", m.norm);
    projection(t.sharedKeysValues_, "shared.keysValues", 2 * m.kvHeads * m.headSize, m.dim);
  }
  norm(t.finalNorm_, "finalNorm", m.norm);
  plan.matrix(t.head_, "head", m.vocabulary, m.dim);
}

}  // namespace parvis
