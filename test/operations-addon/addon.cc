// What JavaScript sees of single operations: run(operation, inputs, threads), as test/support/operations-addon.ts types
// it.
#include <cstring>

#include "../../binding/arguments.h"
#include "../../binding/promise.h"
#include "operation.h"

namespace parvis::binding {

namespace {

// The place of a name in a list of three.
int choice(const Napi::Object& from, const char* name, const char* const (&names)[3]) {
  const std::string value = text(from, name);
  for (int i = 0; i < 3; i++)
    if (value == names[i]) return i;
  throw typedError(from.Env(), {Code::internal, std::string(name) + " cannot be " + value});
}

Operation operation(const Napi::Object& from) {
  using Kind = Operation::Kind;
  Operation o;
  const auto flag = [&](const char* name) { return from.Get(name).ToBoolean().Value(); };
  const auto size = [&](const char* name) { return integer(from, name); };
  const std::string kind = text(from, "kind");
  o.precision = precision(from.Get("precision"));
  o.eps = static_cast<float>(number(from, "eps"));
  if (kind == "projection") {
    o.kind = Kind::projection;
    o.rows = size("rows"), o.inputs = size("inputs"), o.outputs = size("outputs"), o.normed = flag("normed");
    o.epilogue = static_cast<Operation::Epilogue>(choice(from, "epilogue", {"store", "add", "swiglu"}));
  } else if (kind == "attention") {
    o.kind = Kind::attention;
    o.rows = size("rows"), o.streams = size("streams"), o.sees = size("sees"), o.dim = size("dim");
    o.heads = size("heads"), o.kvHeads = size("kvHeads"), o.headSize = size("headSize"), o.grid = size("grid");
  } else if (kind == "draw") {
    o.kind = Kind::draw;
    o.draws = size("draws"), o.vocabulary = size("vocabularySize"), o.guided = flag("guided");
    const Napi::Object rule = object(from.Get("rule"), "rule");
    o.guidance = static_cast<float>(number(rule, "guidanceScale"));
    const Napi::Value draw = rule.Get("draw");
    const bool gumbel = draw.IsString() && draw.As<Napi::String>().Utf8Value() == "gumbel";
    o.rule = {gumbel ? Mode::gumbel : Mode::sample, static_cast<float>(number(rule, "temperature")),
              integer(rule, "topK"), static_cast<float>(number(rule, "topP"))};
  } else {
    o.kind = kind == "convolution" ? Kind::convolution : Kind::spatialAttention;
    o.images = size("images"), o.height = size("height"), o.width = size("width");
    o.channels = size("channels"), o.groups = size("groups");
    if (o.kind == Kind::spatialAttention) return o;
    o.outputs = size("outputs"), o.kernel = size("kernel"), o.swish = flag("swish"), o.residual = flag("residual");
    o.resample = static_cast<Operation::Resample>(choice(from, "resample", {"none", "down", "up"}));
  }
  return o;
}

Napi::Value run(const Napi::CallbackInfo& info) {
  const Operation o = operation(object(info[0], "operation"));
  Inputs inputs;
  const Napi::Array given = object(info[1], "inputs").As<Napi::Array>();
  for (uint32_t i = 0; i < given.Length(); i++) inputs.push_back(array<float>(given.Get(i), "an input"));
  const int threads = info[2].ToNumber().Int32Value();
  std::vector<float> output;
  const Status status = guarded([&] { return runOperation(o, inputs, threads, output); });
  if (!status.ok()) throw typedError(info.Env(), status);
  Napi::Float32Array result = Napi::Float32Array::New(info.Env(), output.size());
  std::memcpy(result.Data(), output.data(), output.size() * sizeof(float));
  return result;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("run", Napi::Function::New(env, run, "run"));
  return exports;
}

NODE_API_MODULE(parvis_operations, init)

}  // namespace

}  // namespace parvis::binding
