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

Napi::Value disposed(Napi::Env env) {
  auto deferred = Napi::Promise::Deferred::New(env);
  deferred.Reject(errorValue(env, {Code::disposed, "This was disposed."}));
  return deferred.Promise();
}

}  // namespace parvis::binding
