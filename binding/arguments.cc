#include "arguments.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>

#include "promise.h"

#include "parvis/limits.h"

namespace parvis::binding {

namespace {

[[noreturn]] void wrong(Napi::Env env, const std::string& what, Code code = Code::internal) {
  throw typedError(env, {code, "parvis native call: " + what});
}

std::vector<int64_t> integers(const Napi::Value& value, const char* what) {
  if (!value.IsArray()) wrong(value.Env(), std::string(what) + " must be an array");
  const auto from = value.As<Napi::Array>();
  std::vector<int64_t> to;
  for (uint32_t i = 0; i < from.Length(); i++) to.push_back(from.Get(i).ToNumber().Int64Value());
  return to;
}

// A whole number of an object, where it goes, and its range.
struct Sized {
  const char* name;
  int* to;
  int least, most;
};
void read(const Napi::Object& from, std::initializer_list<Sized> numbers, Code code = Code::badCheckpoint) {
  for (const Sized& n : numbers) {
    *n.to = integer(from, n.name);
    if (*n.to < n.least || *n.to > n.most) wrong(from.Env(), std::string(n.name) + " is outside its range", code);
  }
}

}  // namespace

Napi::Object object(const Napi::Value& value, const char* what) {
  if (!value.IsObject()) wrong(value.Env(), std::string(what) + " must be an object");
  return value.As<Napi::Object>();
}

double number(const Napi::Object& from, const char* name) {
  const Napi::Value v = from.Get(name);
  if (!v.IsNumber()) wrong(from.Env(), std::string(name) + " must be a number");
  return v.As<Napi::Number>().DoubleValue();
}

int integer(const Napi::Object& from, const char* name) {
  const double d = number(from, name);
  if (!(std::abs(d) <= 2147483647.0) || d != std::floor(d))
    wrong(from.Env(), std::string(name) + " must be a 32-bit integer");
  return static_cast<int>(d);
}

std::string text(const Napi::Object& from, const char* name) {
  const Napi::Value v = from.Get(name);
  if (!v.IsString()) wrong(from.Env(), std::string(name) + " must be a string");
  return v.As<Napi::String>().Utf8Value();
}

template <class T>
Napi::TypedArrayOf<T> typed(const Napi::Value& value, const char* what) {
  constexpr napi_typedarray_type type = std::is_same_v<T, int32_t>    ? napi_int32_array
                                        : std::is_same_v<T, double>   ? napi_float64_array
                                        : std::is_same_v<T, uint64_t> ? napi_biguint64_array
                                        : std::is_same_v<T, float>    ? napi_float32_array
                                                                      : napi_uint8_array;
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type)
    wrong(value.Env(), std::string(what) + " must be a typed array of its type");
  return value.As<Napi::TypedArrayOf<T>>();
}
template Napi::TypedArrayOf<double> typed<double>(const Napi::Value&, const char*);

template <class T>
std::vector<T> array(const Napi::Value& value, const char* what) {
  const auto from = typed<T>(value, what);
  return std::vector<T>(from.Data(), from.Data() + from.ElementLength());
}
template std::vector<int32_t> array<int32_t>(const Napi::Value&, const char*);
template std::vector<uint64_t> array<uint64_t>(const Napi::Value&, const char*);
template std::vector<float> array<float>(const Napi::Value&, const char*);
template std::vector<uint8_t> array<uint8_t>(const Napi::Value&, const char*);

DType dtype(Napi::Env env, const std::string& name) {
  if (name == "float32") return DType::float32;
  if (name == "float16") return DType::float16;
  if (name == "bfloat16") return DType::bfloat16;
  if (name == "int8") return DType::int8;
  wrong(env, "unknown element type " + name);
}

Precision precision(const Napi::Value& value) {
  const std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  if (name == "float32") return Precision::float32;
  if (name == "bfloat16") return Precision::bfloat16;
  if (name == "int8") return Precision::int8;
  wrong(value.Env(), "precision must be float32, bfloat16 or int8");
}

CheckpointFile checkpointFile(const Napi::Value& path, const Napi::Value& identity) {
  if (!path.IsString()) wrong(path.Env(), "file must be a string");
  CheckpointFile file(path.As<Napi::String>().Utf8Value());
  if (identity.IsUndefined()) return file;
  const std::vector<uint64_t> numbers = array<uint64_t>(identity, "identity");
  if (numbers.size() != 4) wrong(path.Env(), "identity must have 4 numbers");
  file.known = true;
  file.device = numbers[0], file.inode = numbers[1], file.size = numbers[2], file.modified = numbers[3];
  return file;
}

static std::vector<TensorSource> tensors(const Napi::Value& value) {
  if (!value.IsArray()) wrong(value.Env(), "tensors must be an array");
  const auto from = value.As<Napi::Array>();
  std::vector<TensorSource> to;
  for (uint32_t i = 0; i < from.Length(); i++) {
    const Napi::Object t = object(from.Get(i), "a tensor");
    TensorSource s;
    s.name = text(t, "name");
    s.dtype = dtype(value.Env(), text(t, "dtype"));
    s.shape = integers(t.Get("shape"), "shape");
    s.offset = static_cast<uint64_t>(number(t, "offset"));
    if (const Napi::Value strides = t.Get("strides"); strides.IsArray()) s.strides = integers(strides, "strides");
    bool good = !s.shape.empty() && (s.strides.empty() || s.strides.size() == s.shape.size());
    for (const int64_t d : s.shape) good = good && d > 0;
    for (const int64_t d : s.strides) good = good && d >= 0;
    if (s.dtype == DType::int8) {
      good = good && s.shape.size() == 2 && s.strides.empty();
      s.scales = static_cast<uint64_t>(number(t, "scales"));
    }
    if (!good) wrong(value.Env(), "tensor " + s.name + " has a bad shape");
    to.push_back(std::move(s));
  }
  return to;
}

std::vector<WeightSource> weights(const Napi::Value& value) {
  if (!value.IsArray()) wrong(value.Env(), "weights must be an array");
  const auto from = value.As<Napi::Array>();
  std::vector<WeightSource> to;
  for (uint32_t i = 0; i < from.Length(); i++) {
    const Napi::Object w = object(from.Get(i), "a weight");
    to.push_back({text(w, "role"), tensors(w.Get("parts"))});
    if (to.back().parts.empty()) wrong(value.Env(), "weight " + to.back().role + " has no parts");
  }
  return to;
}

// Which of two names an option has.
static bool isSecond(const Napi::Object& from, const char* name, const char* first, const char* second) {
  const std::string value = text(from, name);
  if (value != first && value != second) wrong(from.Env(), std::string(name) + " must be " + first + " or " + second);
  return value == second;
}

TransformerModel transformerModel(const Napi::Object& o) {
  TransformerModel m;
  read(o, {{"layers", &m.layers, 1, limits::layers},
           {"crossLayers", &m.crossLayers, 0, limits::layers},
           {"dim", &m.dim, 1, limits::dim},
           {"heads", &m.heads, 1, limits::heads},
           {"kvHeads", &m.kvHeads, 1, limits::heads},
           {"headSize", &m.headSize, 1, limits::headSize},
           {"feedForward", &m.feedForward, 1, limits::feedForward},
           {"vocabularySize", &m.vocabulary, 1, limits::vocabulary},
           {"textTokens", &m.textTokens, 0, limits::vocabulary},
           {"classes", &m.classes, 0, limits::classes},
           {"specials", &m.specials, 0, limits::n - 1},
           {"positions", &m.positions, 0, limits::tokens + limits::prefix}});
  m.norm = isSecond(o, "norm", "rms", "layer") ? NormKind::layer : NormKind::rms;
  m.activation = isSecond(o, "activation", "swiglu", "gelu") ? Activation::gelu : Activation::swiglu;
  m.bias = o.Get("bias").ToBoolean();
  m.embeddingNorm = o.Get("embeddingNorm").ToBoolean();
  m.rotateSpecials = o.Get("rotateSpecials").ToBoolean();
  const std::vector<int64_t> pairs = integers(o.Get("rotationPairs"), "rotationPairs");
  if (pairs.size() != 3) wrong(o.Env(), "rotationPairs must have 3 numbers");
  m.normEps = static_cast<float>(number(o, "normEps"));
  m.ropeBase = static_cast<float>(number(o, "ropeBase"));
  int64_t rotated = 0;
  for (int axis = 0; axis < 3; axis++) {
    if (pairs[axis] < 0 || pairs[axis] > limits::headSize)
      wrong(o.Env(), "rotationPairs are outside their range", Code::badCheckpoint);
    rotated += m.rotationPairs[axis] = static_cast<int>(pairs[axis]);
  }
  if (m.heads % m.kvHeads || m.headSize % 4 || 2 * rotated > m.headSize ||
      (m.bias && m.activation == Activation::swiglu) || (m.rotateSpecials && m.heads * m.headSize != m.dim))
    wrong(o.Env(), "a size of the transformer is outside its range", Code::badCheckpoint);
  return m;
}

// Layers that lead from so many channels to so many others; `changes`: how some of them resample the picture.
static std::vector<TokenizerLayer> tokenizerLayers(const Napi::Object& o, const char* name, int from, int to,
                                                   int groups, Resample changes) {
  const Napi::Value value = o.Get(name);
  if (!value.IsArray()) wrong(o.Env(), std::string(name) + " must be an array");
  const auto list = value.As<Napi::Array>();
  std::vector<TokenizerLayer> layers;
  bool good = list.Length() >= 1 && list.Length() <= limits::tokenizerLayers;
  for (uint32_t i = 0; good && i < list.Length(); i++) {
    const Napi::Object l = object(list.Get(i), "a layer");
    const std::string kind = text(l, "kind"), resample = text(l, "resample");
    TokenizerLayer layer;
    layer.kind = kind == "residual"    ? TokenizerLayer::Kind::residual
                 : kind == "attention" ? TokenizerLayer::Kind::attention
                                       : TokenizerLayer::Kind::convolution;
    read(l, {{"channels", &layer.channels, 1, limits::channels},
             {"outputs", &layer.outputs, 1, limits::channels},
             {"kernel", &layer.kernel, 1, 3}});
    layer.normed = l.Get("normed").ToBoolean();
    const bool convolution = kind == "convolution", resampled = resample == (changes == Resample::up ? "up" : "down");
    if (resampled) layer.resample = changes;
    good = (kind == "residual" || kind == "attention" || convolution) && (resampled || resample == "none") &&
           layer.channels == from && layer.kernel != 2 && (!resampled || (layer.kernel == 3 && !layer.normed)) &&
           (convolution || (!layer.normed && !resampled)) && (!layer.readsNormed() || layer.channels % groups == 0) &&
           (kind != "residual" || layer.outputs % groups == 0) &&
           (kind != "attention" || layer.channels == layer.outputs) &&
           (i + 1 < list.Length() || (convolution && !resampled));
    from = layer.outputs;
    layers.push_back(layer);
  }
  if (!good || from != to)
    wrong(o.Env(), std::string("a layer of the ") + name + " is outside its range", Code::badCheckpoint);
  return layers;
}

TokenizerModel tokenizerModel(const Napi::Object& o) {
  TokenizerModel m;
  read(o, {{"codebookSize", &m.codebook, 1, limits::codebook},
           {"codeSize", &m.codeSize, 1, limits::codeSize},
           {"groups", &m.groups, 1, limits::channels}});
  m.normEps = static_cast<float>(number(o, "normEps"));
  m.encoder = tokenizerLayers(o, "encoder", 3, m.codeSize, m.groups, Resample::down);
  m.decoder = tokenizerLayers(o, "decoder", m.codeSize, 3, m.groups, Resample::up);
  const auto resampled = [](const std::vector<TokenizerLayer>& layers) {
    return std::count_if(layers.begin(), layers.end(),
                         [](const TokenizerLayer& l) { return l.resample != Resample::none; });
  };
  if (resampled(m.encoder) != resampled(m.decoder) || resampled(m.encoder) >= limits::levels)
    wrong(o.Env(), "the levels of the tokenizer are outside their range", Code::badCheckpoint);
  return m;
}

static std::vector<VideoLayer> videoLayers(const Napi::Object& o, const char* name, int from, int to, int groups) {
  const Napi::Value value = o.Get(name);
  if (!value.IsArray()) wrong(o.Env(), std::string(name) + " must be an array");
  const auto list = value.As<Napi::Array>();
  std::vector<VideoLayer> layers;
  bool good = list.Length() >= 1 && list.Length() <= limits::tokenizerLayers;
  for (uint32_t i = 0; good && i < list.Length(); i++) {
    const Napi::Object l = object(list.Get(i), "a layer");
    VideoLayer layer;
    layer.kind =
        isSecond(l, "kind", "convolution", "residual") ? VideoLayer::Kind::residual : VideoLayer::Kind::convolution;
    read(l, {{"channels", &layer.channels, 1, limits::channels},
             {"outputs", &layer.outputs, 1, 8 * limits::channels},
             {"kernel", &layer.kernel, 1, 3},
             {"strideTime", &layer.strideTime, 1, 2},
             {"strideSpace", &layer.strideSpace, 1, 2},
             {"expandTime", &layer.expandTime, 1, 2},
             {"expandSpace", &layer.expandSpace, 1, 2}});
    layer.normed = l.Get("normed").ToBoolean();
    const bool convolution = layer.kind == VideoLayer::Kind::convolution, expands = layer.blocks() > 1,
               strides = layer.strideTime * layer.strideSpace > 1;
    const int part = layer.outputs / layer.blocks();
    good = layer.channels == from && layer.kernel != 2 && (convolution || (!layer.normed && !expands && !strides)) &&
           (convolution || layer.kernel == 3) && (!(expands && strides)) && (!strides || layer.kernel == 3) &&
           (!expands || (part * layer.blocks() == layer.outputs && part % 32 == 0)) && part <= limits::channels &&
           (!layer.readsNormed() || layer.channels % groups == 0) && (convolution || layer.outputs % groups == 0);
    from = part;
    layers.push_back(layer);
  }
  if (!good || from != to)
    wrong(o.Env(), std::string("a layer of the ") + name + " is outside its range", Code::badCheckpoint);
  return layers;
}

VideoTokenizerModel videoTokenizerModel(const Napi::Object& o) {
  VideoTokenizerModel m;
  read(o, {{"groups", &m.groups, 1, limits::channels}});
  m.normEps = static_cast<float>(number(o, "normEps"));
  int64_t codes = 1;
  for (const int64_t level : integers(o.Get("levels"), "levels")) {
    if (level < 2 || level > 4096 || m.levels.size() >= limits::codeSize || codes * level > limits::codebook)
      wrong(o.Env(), "the levels of the tokenizer are outside their range", Code::badCheckpoint);
    codes *= level;
    m.levels.push_back(static_cast<int>(level));
  }
  if (m.levels.empty()) wrong(o.Env(), "the tokenizer has no levels", Code::badCheckpoint);
  const int channels = static_cast<int>(m.levels.size());
  m.encoder = videoLayers(o, "encoder", 3, channels, m.groups);
  m.decoder = videoLayers(o, "decoder", channels, 3, m.groups);
  int time = 1, space = 1;
  for (const VideoLayer& l : m.encoder) time *= l.strideTime, space *= l.strideSpace;
  for (const auto* half : {&m.encoder, &m.decoder})
    for (const VideoLayer& l : *half)
      if (l.strideTime > l.strideSpace || l.expandTime > l.expandSpace)
        wrong(o.Env(), "a layer changes time without space", Code::badCheckpoint);
  if (time != m.factorTime() || space != m.factorSpace() || space > 64)
    wrong(o.Env(), "encoder and decoder of the tokenizer do not fit together", Code::badCheckpoint);
  return m;
}

SessionOptions sessionOptions(const Napi::Object& o) {
  SessionOptions s;
  constexpr int most = std::numeric_limits<int>::max();  // the session checks what else there is
  read(o,
       {{"seats", &s.seats, -most, limits::seats},
        {"streamsEach", &s.streamsEach, -most, most},
        {"slots", &s.slots, -most, limits::tokens + limits::prefix},
        {"tokens", &s.tokens, -most, limits::tokens + limits::prefix},
        {"maxRows", &s.maxRows, -most, limits::stepRows},
        {"kept", &s.kept, -most, limits::tokens}},
       Code::invalidOption);
  return s;
}

Sequence sequence(const Napi::Object& o) {
  Sequence s;
  s.classId = integer(o, "classId");
  const Napi::Value seed = o.Get("seed");
  if (!seed.IsBigInt()) wrong(o.Env(), "seed must be a bigint");
  bool lossless;
  s.seed = seed.As<Napi::BigInt>().Uint64Value(&lossless);
  if (const Napi::Value v = o.Get("known"); !v.IsUndefined()) s.known = array<int32_t>(v, "known");
  return s;
}

template <class T>
std::vector<T> records(const Napi::Object& from, const char* name) {
  static_assert(sizeof(T) % sizeof(int32_t) == 0);
  const auto numbers = typed<int32_t>(from.Get(name), name);
  const size_t bytes = numbers.ElementLength() * sizeof(int32_t);
  if (bytes % sizeof(T) != 0) wrong(from.Env(), std::string(name) + " ends inside a record");
  std::vector<T> to(bytes / sizeof(T));
  if (!to.empty()) std::memcpy(to.data(), numbers.Data(), bytes);
  return to;
}

StepTables stepTables(const Napi::Object& o) {
  return {records<Row>(o, "rows"), records<Prediction>(o, "predictions"), records<SamplingRule>(o, "rules")};
}

SequencePlan sequencePlan(const Napi::Object& o) {
  SequencePlan p;
  p.rows = records<PlannedRow>(o, "rows");
  p.ends = array<int32_t>(o.Get("ends"), "ends");
  if (const Napi::Value v = o.Get("shares"); !v.IsUndefined()) p.shares = array<float>(v, "shares");
  if (const Napi::Value v = o.Get("guesses"); !v.IsUndefined()) p.guesses = array<int32_t>(v, "guesses");
  const std::vector<SamplingRule> rules = records<SamplingRule>(o, "rule");
  if (rules.size() != 1) wrong(o.Env(), "a plan has one rule");
  p.rule = rules.front();
  p.guidance = number(o, "guidanceScale");
  return p;
}

std::vector<PassPart> passParts(const Napi::Value& value) {
  const std::vector<int32_t> numbers = array<int32_t>(value, "parts");
  if (numbers.size() % 2 != 0) wrong(value.Env(), "parts ends inside a part");
  std::vector<PassPart> parts;
  for (size_t i = 0; i < numbers.size(); i += 2) parts.push_back({numbers[i], numbers[i + 1]});
  return parts;
}

}  // namespace parvis::binding
