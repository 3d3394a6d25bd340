#include "promise.h"

namespace parvis::binding {

const char* codeName(Code code) {
  switch (code) {
    case Code::ok: break;
    case Code::badCheckpoint: return "BAD_CHECKPOINT";
    case Code::fileNotFound: return "FILE_NOT_FOUND";
    case Code::outOfMemory: return "OUT_OF_MEMORY";
    case Code::deviceUnavailable: return "DEVICE_UNAVAILABLE";
    case Code::invalidOption: return "INVALID_OPTION";
    case Code::nonFinite: return "NON_FINITE";
    case Code::cancelled: return "CANCELLED";
    case Code::disposed: return "DISPOSED";
    case Code::internal: break;
  }
  return "INTERNAL";
}

Napi::Value errorValue(Napi::Env env, const Status& status) {
  Napi::Error error = Napi::Error::New(env, status.message);
  error.Set("parvisCode", Napi::String::New(env, codeName(status.code)));
  return error.Value();
}

Napi::Error typedError(Napi::Env env, const Status& status) { return Napi::Error(env, errorValue(env, status)); }

Napi::Value typedValue(Napi::Env env, const Napi::Error& error) {
  const Napi::Value value = error.Value();
  if (!value.IsObject()) return errorValue(env, {Code::internal, error.Message()});
  Napi::Object object = value.As<Napi::Object>();
  if (object.Has("parvisCode")) return object;
  if (object.InstanceOf(env.Global().Get("RangeError").As<Napi::Function>()))
    return errorValue(env, {Code::outOfMemory, "There is no memory for the result (" + error.Message() +
                                                   "). Free memory, or ask for less at a time."});
  object.Set("parvisCode", codeName(Code::internal));
  return object;
}

std::string threadsRefused(const std::string& what) {
  return "The system refused to start " + what +
         ". Give Par.load fewer `threads`, or raise the limit on processes and threads (`ulimit -u`, a container's "
         "pids limit) or on memory (`ulimit -v`).";
}

Napi::Value rejected(Napi::Env env, const Napi::Value& error) {
  auto deferred = Napi::Promise::Deferred::New(env);
  deferred.Reject(error);
  return deferred.Promise();
}

Napi::Value resolved(Napi::Env env) {
  auto deferred = Napi::Promise::Deferred::New(env);
  deferred.Resolve(env.Undefined());
  return deferred.Promise();
}

Napi::Value disposed(Napi::Env env) { return rejected(env, errorValue(env, {Code::disposed, "This was disposed."})); }

}  // namespace parvis::binding
