// Comparing a tensor with what its guard expects: tensor_matches(), matches_like(). Only metadata is read, never data,
// so that CPU, CUDA and every other device go one way.
#pragma once

#include "program/program.h"

#include <ATen/core/TensorBase.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>

namespace unified_guards {

// Bits that Dynamo hides from guards, unless inside a dispatch mode that asks to see them.
inline constexpr c10::DispatchKeySet kPythonKeys{c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot,
                                                 c10::DispatchKey::PythonDispatcher};

// Asks torch, on this thread, whether such a mode is active (module.cpp; slow, needed only for tensors with Python
// keys).
bool python_keys_are_visible();

// The thread's dispatch state at the start of a check, mirroring LocalState::apply of torch/csrc/dynamo/guards.h.
class DispatchState {
 public:
  DispatchState() : local_(c10::impl::tls_local_dispatch_key_set()) {
    if (adds_python_keys()) visible();
  }

  // Another state than this thread's: the one in which guards were made that torch has saved.
  DispatchState(c10::DispatchKeySet included, c10::DispatchKeySet excluded, bool shows_python_keys)
      : local_(c10::impl::tls_local_dispatch_key_set()), visible_(shows_python_keys) {
    local_.included_ = included;
    local_.excluded_ = excluded;
  }

  // Whether the keys that guards see of a tensor without Python keys of its own are the same in both. Two stacks of
  // modes may add the same keys, of which guards see those of one stack only.
  bool operator==(const DispatchState& other) const {
    return local_.included_ == other.local_.included_ && local_.excluded_ == other.local_.excluded_ &&
           (!adds_python_keys() || visible_ == other.visible_);
  }

  uint64_t apply(c10::DispatchKeySet keys) {
    c10::DispatchKeySet result = (keys | local_.included_) - local_.excluded_;
    if (result.has_any(kPythonKeys) && !visible()) result = result - kPythonKeys;
    return result.raw_repr();
  }

 private:
  bool adds_python_keys() const { return (local_.included_ - local_.excluded_).has_any(kPythonKeys); }

  bool visible() {
    if (visible_ < 0) visible_ = python_keys_are_visible();
    return visible_ != 0;
  }

  c10::impl::LocalDispatchKeySet local_;
  int visible_ = -1;
};

inline const at::Tensor& tensor_of(PyObject* object) { return THPVariable_Unpack(object); }

inline bool is_tensor(PyObject* object) {
  return PyType_IsSubtype(Py_TYPE(object), reinterpret_cast<PyTypeObject*>(THPVariableClass)) != 0;
}

// Words (see cpython/words.h) of tensors: which implementation a tensor has, which autograd metadata the implementation
// has, and which Python object stands for it. Null where there is no such word.
namespace words {

// Gives access to protected fields.
struct Peek : c10::TensorImpl {
  // Where autograd_meta_, which is private, ends: extra_meta_ follows it, with no room for another field in between.
  static const char* behind_autograd(const c10::TensorImpl& tensor) {
    return reinterpret_cast<const char*>(&(tensor.*(&Peek::extra_meta_)));
  }
  static const c10::impl::SizesAndStrides& dims(const c10::TensorImpl& tensor) {
    return tensor.*(&Peek::sizes_and_strides_);
  }
  static uint64_t keys(const c10::TensorImpl& tensor) { return (tensor.*(&Peek::key_set_)).raw_repr(); }
  // dtype, device, and every flag that says whether an accessor reads its field or asks somebody (see PolicyBits).
  static const char* kind(const c10::TensorImpl& tensor) {
    return reinterpret_cast<const char*>(&(tensor.*(&Peek::data_type_)));
  }
  static const std::optional<c10::Device>& device(const c10::TensorImpl& tensor) {
    return tensor.*(&Peek::device_opt_);
  }
  static int64_t offset(const c10::TensorImpl& tensor) { return tensor.*(&Peek::storage_offset_); }
  static bool kind_ends_at_keys(const c10::TensorImpl& tensor) {
    return kind(tensor) + sizeof(uint64_t) == reinterpret_cast<const char*>(&(tensor.*(&Peek::key_set_)));
  }
};

}  // namespace words

// The eight bytes from the dtype up to the key set.
inline uint64_t kind_of(const c10::TensorImpl& implementation) {
  uint64_t kind = 0;
  std::memcpy(&kind, words::Peek::kind(implementation), sizeof kind);
  return kind;
}

// Which bits of these eight bytes are the policies of TensorImpl. Where one is set, an accessor asks a virtual
// function, which may ask a subclass in Python or a tensor inside; its answer need not be what the field says. The
// policies are bit-fields, and C++ cannot name the place of a bit-field. So the bits are found by changing a tensor
// that is made for it.
struct PolicyBits {
  uint64_t dims = 0, device = 0, layout = 0;

  bool are_found() const { return dims != 0 && device != 0 && layout != 0; }
  uint64_t any() const { return dims | device | layout; }
};

struct PolicyExample : c10::TensorImpl {
  PolicyExample() : TensorImpl(c10::DispatchKeySet(), caffe2::TypeMeta(), std::nullopt) {}

  PolicyBits find() {
    const auto changed_by = [this](auto set) {
      const uint64_t before = kind_of(*this);
      set();
      return kind_of(*this) ^ before;
    };
    PolicyBits found;
    if (!words::Peek::kind_ends_at_keys(*this)) return found;
    found.dims = changed_by([this] { sizes_strides_policy_ = 3; });  // both bits of it
    found.device = changed_by([this] { device_policy_ = true; });
    found.layout = changed_by([this] { layout_policy_ = true; });
    return found;
  }
};
inline const PolicyBits kPolicyBits = PolicyExample().find();

inline cpython::Word implementation_word(PyObject* tensor) { return cpython::word_at(&tensor_of(tensor)); }

inline cpython::Word autograd_word(const c10::TensorImpl& implementation) {
  const cpython::Word word = cpython::word_at(words::Peek::behind_autograd(implementation)) - 1;
  return *word == cpython::bits(implementation.autograd_meta()) ? word : nullptr;
}

inline cpython::Word object_word(const c10::TensorImpl& implementation) {
  const auto* slot = implementation.pyobj_slot();
  const uint64_t object = cpython::bits(slot->load_pyobj());
  for (size_t i = 0; object != 0 && i < sizeof(*slot) / sizeof(uint64_t); i++) {
    const cpython::Word word = cpython::word_at(slot) + i;
    if (*word == object) return word;
  }
  return nullptr;
}

inline bool dims_match(const int64_t* expected, const int64_t* found, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (expected[i] != found[i] && expected[i] != kAnyDim) return false;
  }
  return true;
}

// Whether sizes and strides are what a spec expects.
inline bool sizes_and_strides_match(const TensorSpec& spec, const int64_t* dims, size_t rank, const int64_t* sizes,
                                    const int64_t* strides) {
  return rank == spec.rank && dims_match(dims, sizes, rank) && dims_match(dims + rank, strides, rank);
}

// A static size or stride equals a symbolic one only where that is known already. Comparing would add a guard to the
// ShapeEnv of the symbol, which a check must not do. Stricter than torch, which compares.
inline bool symbolic_dims_match(const int64_t* expected, c10::SymIntArrayRef found) {
  for (size_t i = 0; i < found.size(); i++) {
    if (expected[i] == kAnyDim) continue;
    auto known = found[i].maybe_as_int();
    if (!known || *known != expected[i]) return false;
  }
  return true;
}

inline bool has_no_strides(c10::Layout layout) {
  return layout == c10::kSparseCsr || layout == c10::kSparseCsc || layout == c10::kSparseBsr ||
         layout == c10::kSparseBsc;
}

// Tensors whose sizes are not two plain arrays: symbolic, nested, sparse compressed, subclasses that compute them.
// May throw (a strided nested tensor does); the caller turns that into a failed guard.
inline bool unusual_dims_match(const TensorSpec& spec, const int64_t* dims, const at::Tensor& tensor) {
  if (has_no_strides(tensor.layout())) {
    if (static_cast<size_t>(tensor.dim()) != spec.rank || !symbolic_dims_match(dims, tensor.sym_sizes())) return false;
    // There are no strides. Torch would compare a guarded stride with memory that it has freed. Here it does not match.
    return std::all_of(dims + spec.rank, dims + 2 * spec.rank, [](int64_t stride) { return stride == kAnyDim; });
  }
  c10::SymIntArrayRef sizes = tensor.sym_sizes();
  if (sizes.size() != spec.rank || !symbolic_dims_match(dims, sizes)) return false;
  c10::SymIntArrayRef strides = tensor.sym_strides();  // a subclass may have more or fewer of them
  return strides.size() == spec.rank && symbolic_dims_match(dims + spec.rank, strides);
}

// Which fields of a tensor are what torch's accessors answer, so that they can be read in place.
struct InPlace {
  // What guards see of the keys follows from the keys and a DispatchState. There is no Python key, the visibility of
  // which depends on the modes of the thread.
  bool keys;
  // Always: dtype() is not virtual and has no policy.
  bool dtype = true;
  // There is a device, and no policy says that a virtual function gives it.
  bool device;
  // Sizes, strides and storage offset. No policy says that they are computed. One does where they are symbolic, nested
  // or batched, and for sparse and opaque tensors, functional wrappers and subclasses that asked for it. The layout is
  // strided, since others have no strides. Those of a tensor with Python keys are not read in place either.
  bool dims;
  // It is not a view: whether a view requires a gradient depends on its base.
  bool gradient;

  // Whether all that a Likeness consists of can be read in place.
  bool likeness() const { return keys && dtype && device && dims; }
};

inline const torch::autograd::AutogradMeta* autograd_of(const c10::AutogradMetaInterface* metadata) {
  return static_cast<const torch::autograd::AutogradMeta*>(metadata);  // the only kind there is: torch casts so, too
}

inline constexpr c10::DispatchKeySet kNotStrided = c10::sparse_ks | c10::sparse_csr_ks | c10::mkldnn_ks;

inline InPlace reads_in_place(const c10::TensorImpl& implementation) {
  const uint64_t policies = kind_of(implementation) & kPolicyBits.any();
  const torch::autograd::AutogradMeta* autograd = autograd_of(implementation.autograd_meta());
  InPlace found{};
  found.keys = !implementation.key_set().has_any(kPythonKeys);
  found.dtype = true;
  found.device = (policies & kPolicyBits.device) == 0 && words::Peek::device(implementation).has_value();
  found.dims = found.keys && (policies & (kPolicyBits.dims | kPolicyBits.layout)) == 0 &&
               !implementation.key_set().has_any(kNotStrided);
  found.gradient = autograd == nullptr || !autograd->is_view_;
  return found;
}

// Whether reading sizes, strides, storage offset, device or layout of a tensor may run Python code: a subclass's, that
// of a tensor inside, or that of symbolic numbers. A sparse or opaque tensor by itself answers in C++.
inline bool asks_python(const c10::TensorImpl& implementation) {
  constexpr c10::DispatchKeySet kWrappers =
      kPythonKeys | c10::functorch_transforms_ks | c10::DispatchKeySet(c10::DispatchKey::Functionalize);
  if ((kind_of(implementation) & kPolicyBits.any()) == 0) return false;
  const c10::DispatchKeySet keys = implementation.key_set();
  return !keys.has_any(kNotStrided) || keys.has_any(kWrappers) || implementation.has_symbolic_sizes_strides();
}

// Index of the accelerator's current device (check/evaluate.cpp).
int current_device_index();

// Whether backward passes through a tensor with this metadata. Its own fields say it, unless it is a view: a view may
// come to require a gradient together with its base.
inline bool requires_gradient(const c10::AutogradMetaInterface* metadata) {
  const torch::autograd::AutogradMeta* autograd = autograd_of(metadata);
  return autograd != nullptr &&
         (autograd->requires_grad_ || autograd->grad_fn_ || (autograd->is_view_ && autograd->requires_grad()));
}

inline bool fields_match(const TensorSpec& spec, const int64_t* dims, const at::Tensor& tensor,
                         DispatchState& dispatch) {
  c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  if (dispatch.apply(impl->key_set()) != spec.keys) return false;
  if (static_cast<int8_t>(c10::typeMetaToScalarType(impl->dtype())) != spec.dtype) return false;
  const c10::Device device = impl->device();
  const int index = spec.device_is_current ? current_device_index() : spec.device_index;
  if (device.index() != index) return false;
  if (requires_gradient(impl->autograd_meta()) != spec.requires_grad) return false;
  if (!reads_in_place(*impl).dims) return unusual_dims_match(spec, dims, tensor);
  c10::IntArrayRef sizes = impl->sizes();
  return sizes_and_strides_match(spec, dims, sizes.size(), sizes.data(), impl->strides().data());
}

// `object` has exactly spec.type, which is torch.Tensor or a subclass. Code in Python may give it another
// implementation, so the one that is read is held.
inline bool tensor_matches(const TensorSpec& spec, const int64_t* dims, PyObject* object, DispatchState& dispatch) {
  const at::Tensor& tensor = tensor_of(object);
  if (!asks_python(*tensor.unsafeGetTensorImpl())) return fields_match(spec, dims, tensor, dispatch);
  return fields_match(spec, dims, at::Tensor(tensor), dispatch);
}

// What a tensor that matched a spec looked like in memory. Another tensor with this likeness matches the spec as well,
// in the same dispatch state, if its type, its dims and its gradient match.
struct Likeness {
  uint64_t keys = 0, kind = 0;  // a key set is never empty
};

inline Likeness likeness_of(const c10::TensorImpl& implementation) {
  return {words::Peek::keys(implementation), kind_of(implementation)};
}

// The autograd metadata, read from where its pointer stands: torch's own accessor is a call into another library. Call
// it only where autograd_word() has found that place.
inline const torch::autograd::AutogradMeta* autograd_in_place(const c10::TensorImpl& implementation) {
  const cpython::Word word = cpython::word_at(words::Peek::behind_autograd(implementation)) - 1;
  return reinterpret_cast<const torch::autograd::AutogradMeta*>(*word);
}

// tensor_matches() where `like` is the likeness of a tensor that did, whose likeness can be read in place (InPlace) and
// for which autograd_in_place() holds: a tensor with other policies is of another kind. `kRank` is that of the spec,
// all of whose dims are guarded; -1 for any other.
template <int kRank>
inline bool matches_like(const Likeness& like, const TensorSpec& spec, const int64_t* dims,
                         const c10::TensorImpl& implementation) {
  const c10::impl::SizesAndStrides& found = words::Peek::dims(implementation);
  // No branch for each comparison: all operands come into the cache together.
  uint64_t differ = (words::Peek::keys(implementation) ^ like.keys) | (kind_of(implementation) ^ like.kind);
  if constexpr (kRank < 0) {
    if (!sizes_and_strides_match(spec, dims, found.size(), found.sizes_data(), found.strides_data())) return false;
  } else {
    if (found.size() != kRank) return false;
    for (int at = 0; at < kRank; at++) {
      differ |= static_cast<uint64_t>(found.sizes_data()[at] ^ dims[at]);
      differ |= static_cast<uint64_t>(found.strides_data()[at] ^ dims[kRank + at]);
    }
  }
  return differ == 0 && requires_gradient(autograd_in_place(implementation)) == spec.requires_grad;
}

// Prefetches what matches_like() reads, from where the implementation and the autograd metadata were last. Inlined by
// force: to the compiler, a function that only prefetches does nothing, and calls of it are left out.
[[gnu::always_inline]] inline void fetch_tensor(PyObject* tensor, const void* implementation, const void* autograd) {
  const auto* object = reinterpret_cast<const char*>(tensor);
  const auto* fields = static_cast<const char*>(implementation);
  __builtin_prefetch(object + 8);
  __builtin_prefetch(object + 16);
  __builtin_prefetch(fields + 24);
  __builtin_prefetch(fields + 56);
  __builtin_prefetch(fields + 120);
  __builtin_prefetch(fields + 168);
  __builtin_prefetch(&static_cast<const torch::autograd::AutogradMeta*>(autograd)->requires_grad_);
}

}  // namespace unified_guards
