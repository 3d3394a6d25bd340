// Arguments in. The caller is lib/, which has validated what users gave; a wrong type here is a defect, reported
// as INTERNAL, never a crash.
#pragma once

#include <string>
#include <vector>

#include "napi.h"
#include "parvis/model.h"
#include "parvis/step.h"

namespace parvis::binding {

double number(const Napi::Object& from, const char* name);
int integer(const Napi::Object& from, const char* name);
std::string text(const Napi::Object& from, const char* name);
Napi::Object object(const Napi::Value& value, const char* what);
template <class T>
Napi::TypedArrayOf<T> typed(const Napi::Value& value, const char* what);  // not copied
template <class T>
std::vector<T> array(const Napi::Value& value, const char* what);  // from a typed array of that type

DType dtype(Napi::Env env, const std::string& name);
Precision precision(const Napi::Value& value);
// path; identity: undefined, or device, inode, size and time of the last change in a BigUint64Array
CheckpointFile checkpointFile(const Napi::Value& path, const Napi::Value& identity);
std::vector<WeightSource> weights(const Napi::Value& value);
TransformerModel transformerModel(const Napi::Object& from);
TokenizerModel tokenizerModel(const Napi::Object& from);
VideoTokenizerModel videoTokenizerModel(const Napi::Object& from);
SessionOptions sessionOptions(const Napi::Object& from);
Sequence sequence(const Napi::Object& from);
// Copies of the three tables of a step.
struct StepTables {
  std::vector<Row> rows;
  std::vector<Prediction> predictions;
  std::vector<SamplingRule> rules;
};
StepTables stepTables(const Napi::Object& from);
SequencePlan sequencePlan(const Napi::Object& from);
// [parts, 2] ints: a seat, and how many of its steps the pass may run.
std::vector<PassPart> passParts(const Napi::Value& value);

}  // namespace parvis::binding
