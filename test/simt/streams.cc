// Streams, events and graphs of the simulated CUDA runtime.
#include <algorithm>

#include "machine.h"

using namespace simt;

// ---- streams and events -------------------------------------------------------------------------------------

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return call(0, nullptr, [&] {
    if (flags != cudaStreamNonBlocking)
      return cudaErrorNotSupported;  // others wait for the null stream, and it for them
    *stream = new SimtStream{currentDevice, std::this_thread::get_id(), {}, {}};
    m().streams.insert(*stream);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (!stream) return remember(cudaErrorInvalidResourceHandle);
  cudaError_t e = drain(stream);
  const Lock hold(m().lock);
  if (!m().streams.count(stream)) return remember(cudaErrorInvalidResourceHandle);
  if (stream->capture) e = cudaErrorStreamCaptureUnsupported;
  m().streams.erase(stream);
  delete stream;
  return remember(e);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const cudaError_t e = call(unsafe | notCapturing, stream, [] { return cudaSuccess; });
  return e == cudaSuccess && stream ? drain(stream) : e;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return call(unsafe | notCapturing, stream, [&] {
    if (!stream || stream->queue.empty()) return cudaSuccess;
    if (m().oneIn(2)) {  // who asks often enough gets there
      if (const cudaError_t e = runFront(stream)) return e;
    }
    return stream->queue.empty() ? cudaSuccess : cudaErrorNotReady;
  });
}

static bool known(cudaEvent_t event) { return m().events.count(event) > 0; }
static bool reached(cudaEvent_t event) { return event->progress->reached == event->progress->enqueued; }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call(0, nullptr, [&] {
    *event = new SimtEvent;
    (*event)->device = currentDevice;
    (*event)->timing = !(flags & cudaEventDisableTiming);
    m().events.insert(*event);
    return cudaSuccess;
  });
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call(notCapturing | (stream ? 0u : streamOfDevice), stream, [&] {
    if (!known(event) || event->device != (stream ? stream->device : currentDevice))
      return cudaErrorInvalidResourceHandle;
    event->stream = stream;
    const uint64_t number = ++event->progress->enqueued;
    return submit(stream, [=, progress = event->progress] {
      progress->reached = std::max(progress->reached, number);
      progress->when = std::chrono::steady_clock::now();
      return cudaSuccess;
    });
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  SimtStream* stream = nullptr;
  std::shared_ptr<SimtEvent::Progress> progress;
  uint64_t number = 0;
  const cudaError_t e = call(unsafe, nullptr, [&] {
    if (!known(event)) return cudaErrorInvalidResourceHandle;
    stream = event->stream;
    progress = event->progress;
    number = progress->enqueued;
    return device(event->device).broken;
  });
  return e == cudaSuccess && stream ? drain(stream, [&] { return progress->reached >= number; }) : e;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return call(unsafe, nullptr, [&] {
    if (!known(event)) return cudaErrorInvalidResourceHandle;
    if (!reached(event) && m().streams.count(event->stream) && !event->stream->queue.empty() && m().oneIn(2))
      runFront(event->stream);
    if (device(event->device).broken != cudaSuccess) return device(event->device).broken;
    return reached(event) ? cudaSuccess : cudaErrorNotReady;
  });
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  return call(0, nullptr, [&] {
    if (!known(from) || !known(to) || !from->timing || !to->timing || from->progress->enqueued == 0 ||
        to->progress->enqueued == 0)
      return cudaErrorInvalidResourceHandle;
    if (!reached(from) || !reached(to)) return cudaErrorNotReady;
    *milliseconds = std::chrono::duration<float, std::milli>(to->progress->when - from->progress->when).count();
    return cudaSuccess;
  });
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Lock hold(m().lock);
  if (m().events.erase(event) == 0) return remember(cudaErrorInvalidResourceHandle);
  delete event;
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return call(notCapturing, stream, [&] {
    if (!known(event)) return cudaErrorInvalidResourceHandle;
    return submit(stream, [other = event->stream, progress = event->progress, number = event->progress->enqueued] {
      while (progress->reached < number && m().streams.count(other) && !other->queue.empty())
        if (const cudaError_t e = runFront(other)) return e;
      return cudaSuccess;
    });
  });
}

// ---- graphs -------------------------------------------------------------------------------------------------

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (!stream) return remember(cudaErrorStreamCaptureUnsupported);
  return call(0, stream, [&] {
    if (stream->capture) return cudaErrorIllegalState;
    stream->capture.reset(new Capture{mode, std::this_thread::get_id(), {}});
    return cudaSuccess;
  });
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock hold(m().lock);
  *graph = nullptr;
  if (!m().streams.count(stream)) return remember(cudaErrorInvalidResourceHandle);
  if (!stream->capture) return remember(cudaErrorIllegalState);
  if (stream->capture->mode != cudaStreamCaptureModeRelaxed && stream->capture->thread != std::this_thread::get_id())
    return remember(cudaErrorStreamCaptureWrongThread);
  const std::unique_ptr<Capture> capture = std::move(stream->capture);
  if (device(stream->device).broken != cudaSuccess) return remember(device(stream->device).broken);
  if (capture->invalid || m().refuses.count("capture")) return remember(cudaErrorStreamCaptureInvalidated);
  *graph = new SimtGraph{std::move(capture->recorded)};
  m().graphs.insert(*graph);
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const Lock hold(m().lock);
  if (stream && !m().streams.count(stream)) return remember(cudaErrorInvalidResourceHandle);
  *status = !stream || !stream->capture ? cudaStreamCaptureStatusNone
            : stream->capture->invalid  ? cudaStreamCaptureStatusInvalidated
                                        : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  return call(0, nullptr, [&] {
    if (!m().graphs.count(graph)) return cudaErrorInvalidValue;
    if (m().refuses.count("instantiate")) return cudaErrorNotSupported;
    *exec = new SimtGraphExec{graph->operations};
    m().execs.insert(*exec);
    return cudaSuccess;
  });
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return call(streamOfDevice, stream, [&] {
    if (!m().execs.count(exec)) return cudaErrorInvalidValue;
    for (const Operation& operation : exec->operations)
      if (const cudaError_t e = submit(stream, operation)) return e;
    return cudaSuccess;
  });
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const Lock hold(m().lock);
  if (m().graphs.erase(graph) == 0) return remember(cudaErrorInvalidValue);
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  const Lock hold(m().lock);
  if (m().execs.erase(exec) == 0) return remember(cudaErrorInvalidValue);
  delete exec;
  return cudaSuccess;
}
