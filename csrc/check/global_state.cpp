// See global_state.h.
#include "check/global_state.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

namespace unified_guards {

GlobalState GlobalState::now() {
  constexpr auto& devices = at::autocast::_AUTOCAST_SUPPORTED_DEVICES;
  static_assert(devices.size() <= kMostDevices);
  const auto& context = at::globalContext();
  GlobalState state{};
  const auto excluded = c10::impl::tls_local_dispatch_key_set().excluded_;
  state.autocast_off = (excluded & c10::autocast_dispatch_keyset).raw_repr();
  state.autocast_dtype.fill(-1);
  if (state.autocast_off != c10::autocast_dispatch_keyset.raw_repr()) {
    for (size_t i = 0; i < devices.size(); i++) {
      if (!at::autocast::is_autocast_enabled(devices[i])) continue;
      state.autocast_dtype[i] = static_cast<int8_t>(at::autocast::get_autocast_dtype(devices[i]));
    }
  }
  state.threads = at::get_num_threads();
  state.default_dtype = static_cast<int8_t>(c10::get_default_dtype_as_scalartype());
  state.torch_function = static_cast<int8_t>(at::impl::PythonTorchFunctionTLS::get_disabled_state());
  state.fp16_reduction = static_cast<int8_t>(context.allowFP16ReductionCuBLAS());
  state.bf16_reduction = static_cast<int8_t>(context.allowBF16ReductionCuBLAS());
  state.matmul_precision =
      static_cast<int8_t>(context.float32Precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL));
  state.grad = at::GradMode::is_enabled();
  state.autocast_cache = at::autocast::is_autocast_cache_enabled();
  state.deterministic = context.deterministicAlgorithms();
  state.warn_only = context.deterministicAlgorithmsWarnOnly();
  return state;
}

bool StateGuard::holds() {
  const GlobalState now = GlobalState::now();
  if (now == state_ || now == last_) return true;
  if (torchs_.get() == Py_None) return false;
  const Ref same(PyObject_CallNoArgs(torchs_.get()));
  if (!same) PyErr_Clear();
  if (same.get() != Py_True) return false;
  last_ = now;
  return true;
}

}  // namespace unified_guards
