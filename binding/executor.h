// One thread an engine that runs its jobs in order, and the way back to JavaScript. Jobs are created and settled
// on the JavaScript thread; only their work runs here, so nothing native holds the event loop, and none of libuv's
// few threads is taken. When Node takes the environment down (its loop has ended, a worker thread is terminated) the
// running job is told to stop and the thread is joined: no native code outlives its environment. process.exit() on the
// main thread does not take it down; the process ends with the thread in it, which holds nothing that must be saved,
// unless `halt` was called (lib/machine/engine.ts says where that matters).
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "../common/thread-end.h"
#include "napi.h"
#include "parvis/status.h"
#include "parvis/step.h"

namespace parvis::binding {

using CancelFlag = std::shared_ptr<Cancel>;

struct Job {
  virtual ~Job() = default;
  virtual void work() = 0;             // executor thread
  virtual void settle(Napi::Env) = 0;  // JavaScript thread
  CancelFlag cancel = std::make_shared<Cancel>(false);
};

// Made with new; deletes itself after `retire`, so that nobody waits for it on the JavaScript thread.
class Executor {
 public:
  explicit Executor(Napi::Env env);
  Executor(const Executor&) = delete;

  void submit(std::unique_ptr<Job> job);  // settles on the JavaScript thread
  void post(std::function<void()> work);  // nothing comes back; runs here where the executor has ended
  bool ended() const { return ended_; }
  void halt();  // JavaScript thread: cancels the running job, drops the others, waits for the thread
  std::shared_ptr<Executor*> self() const { return self_; }  // null in it: gone. Of the JavaScript thread
  // No call after this one: runs what is queued, then `last`, then goes; `done` is called when its thread has ended.
  void retire(std::function<void()> last, std::function<void(Napi::Env)> done = nullptr);

 private:
  struct Entry {
    std::unique_ptr<Job> job;
    std::function<void()> work;
  };
  ~Executor() { *self_ = nullptr; }
  void loop();
  void end();  // JavaScript thread; cancels and waits for the running job
  static void onSettle(napi_env env, napi_value, void* context, void* data);
  static void onCleanup(void* self);

  std::shared_ptr<Executor*> self_ = std::make_shared<Executor*>(this);
  napi_env env_;
  napi_threadsafe_function back_ = nullptr;
  std::thread thread_;
  ThreadEnd threadEnd_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Entry> queue_;
  std::vector<std::unique_ptr<Job>> unsettled_;  // done, and nobody there to be told: they go on the JavaScript thread
  std::function<void(Napi::Env)> done_;          // JavaScript thread only
  CancelFlag running_;
  bool stop_ = false;
  bool retired_ = false;
  bool ended_ = false;  // JavaScript thread only
  int pending_ = 0;     // JavaScript thread only
};

}  // namespace parvis::binding
