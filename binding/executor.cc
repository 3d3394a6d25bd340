#include "executor.h"

namespace parvis::binding {

Executor::Executor(Napi::Env env) : env_(env) {
  napi_value name = Napi::String::New(env, "parvis");
  const napi_status status = napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, onSettle, &back_);
  if (status != napi_ok) throw Napi::Error::New(env, "parvis could not create its thread-safe function.");
  napi_unref_threadsafe_function(env, back_);  // an idle engine keeps no process alive
  napi_add_env_cleanup_hook(env, onCleanup, this);
  thread_ = std::thread([this] { loop(); });
}

Executor::~Executor() { end(true); }

void Executor::onCleanup(void* self) { static_cast<Executor*>(self)->end(true); }

void Executor::end(bool cancelRunning) {
  if (ended_) return;
  ended_ = true;
  napi_remove_env_cleanup_hook(env_, onCleanup, this);
  std::deque<Entry> dropped;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    if (cancelRunning) {
      if (running_) running_->store(true);
      dropped.swap(queue_);
    }
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  for (auto& e : dropped)
    if (e.work) e.work();
  napi_release_threadsafe_function(back_, napi_tsfn_abort);
  back_ = nullptr;
}

void Executor::submit(std::unique_ptr<Job> job) {
  if (pending_++ == 0) napi_ref_threadsafe_function(env_, back_);
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back({std::move(job), nullptr});
  }
  wake_.notify_one();
}

void Executor::post(std::function<void()> work) {
  if (ended_) return work();
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back({nullptr, std::move(work)});
  }
  wake_.notify_one();
}

void Executor::loop() {
  for (;;) {
    Entry entry;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) return;
      entry = std::move(queue_.front());
      queue_.pop_front();
      running_ = entry.job ? entry.job->cancel : nullptr;
    }
    if (entry.work) {
      entry.work();
      continue;
    }
    entry.job->work();
    Job* job = entry.job.release();
    if (napi_call_threadsafe_function(back_, job, napi_tsfn_nonblocking) != napi_ok) delete job;
  }
}

void Executor::onSettle(napi_env env, napi_value, void* context, void* data) {
  const std::unique_ptr<Job> job(static_cast<Job*>(data));
  if (env == nullptr) return;  // the environment is going down: nobody waits for the result
  Executor* self = static_cast<Executor*>(context);
  Napi::HandleScope scope(env);
  if (--self->pending_ == 0 && self->back_) napi_unref_threadsafe_function(env, self->back_);
  try {
    job->settle(env);
  } catch (const Napi::Error&) {  // settling only fails where JavaScript can no longer run
  }
}

}  // namespace parvis::binding
