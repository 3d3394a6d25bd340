// How native code reports failure. Backends never throw across the seam, never print, never exit: they return
// a Status, and `binding/` turns it into a typed JavaScript error in one place.
#pragma once

#include <string>
#include <utility>

namespace parvis {

enum class Code {
  ok,
  badCheckpoint,  // the file is shorter or other than its header said
  fileNotFound,
  outOfMemory,  // the message says how much was needed and how much is free
  deviceUnavailable,
  invalidOption,  // a row table or an argument outside what the session was made for
  nonFinite,      // NaN or infinite logits
  cancelled,
  disposed,
  internal,
};

struct [[nodiscard]] Status {
  Code code = Code::ok;
  std::string message;

  Status() = default;
  Status(Code code, std::string message) : code(code), message(std::move(message)) {}
  bool ok() const { return code == Code::ok; }
};

inline Status cancelled() { return {Code::cancelled, "Cancelled."}; }

}  // namespace parvis
