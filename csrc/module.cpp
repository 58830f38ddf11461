// Registers the extension; conversion only.
#include "checker.h"
#include "tensor.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

namespace py = pybind11;

namespace unified_guards {

namespace {

PyObject* visibility_probe = nullptr;  // see set_visibility_probe

constexpr const char* kOpNames[] = {
#define UG_NAME(name) #name,
    UG_ACCESSORS(UG_NAME) UG_GUARDS(UG_NAME)
#undef UG_NAME
};

py::dict ops() {
  py::dict names;
  for (size_t i = 0; i < static_cast<size_t>(Op::kCount); i++) names[kOpNames[i]] = i;
  return names;
}

void append_dims(std::vector<int64_t>& out, py::handle dims) {
  for (py::handle dim : dims) out.push_back(dim.is_none() ? kAnyDim : dim.cast<int64_t>());
}

// (type address, key set after apply, dtype number, device index, requires_grad, sizes, strides, device is current)
uint32_t add_tensor(Program& program, py::tuple facts) {
  TensorSpec spec{};
  std::vector<int64_t> dims;
  append_dims(dims, facts[5]);
  spec.rank = static_cast<uint16_t>(dims.size());
  append_dims(dims, facts[6]);
  spec.type = reinterpret_cast<PyTypeObject*>(facts[0].cast<uint64_t>());
  spec.keys = facts[1].cast<uint64_t>();
  spec.dtype = facts[2].cast<int8_t>();
  spec.device_index = facts[3].cast<int8_t>();
  spec.requires_grad = facts[4].cast<bool>();
  spec.device_is_current = facts[7].cast<bool>();
  return program.add_tensor(spec, dims);
}

// Each row is (op, base, arg, object, number); TENSOR rows hold their facts as the object.
std::shared_ptr<Checker> make_checker(const py::list& rows, const py::object& oracle) {
  auto checker = std::make_shared<Checker>();
  Program& program = checker->program;
  for (py::handle item : rows) {
    auto* row = item.ptr();
    if (!PyTuple_CheckExact(row) || PyTuple_GET_SIZE(row) != 5) throw py::value_error("a row has five fields");
    const auto op = static_cast<Op>(PyLong_AsLong(PyTuple_GET_ITEM(row, 0)));
    const auto base = PyLong_AsLong(PyTuple_GET_ITEM(row, 1));
    auto arg = static_cast<uint32_t>(PyLong_AsUnsignedLongMask(PyTuple_GET_ITEM(row, 2)));
    PyObject* object = PyTuple_GET_ITEM(row, 3);
    const uint64_t number = PyLong_AsUnsignedLongLongMask(PyTuple_GET_ITEM(row, 4));
    if (PyErr_Occurred()) throw py::error_already_set();
    if (base < 0 || base > UINT16_MAX) throw py::value_error("a path is deeper than 65535 accessors");
    if (op == Op::TENSOR) {
      arg = add_tensor(program, py::reinterpret_borrow<py::tuple>(object));
      object = Py_None;
    }
    program.add(op, static_cast<uint16_t>(base), arg, object, number);
  }
  program.finish();
  if (!oracle.is_none()) checker->oracle = oracle.inc_ref().ptr();
  return checker;
}

// What a tensor guard made now would expect of `tensor`: its part of the facts above that Python cannot read exactly.
// `keys` is the raw key set to use instead of the tensor's own, or None.
py::tuple tensor_facts(py::handle tensor, const py::object& keys) {
  if (!is_tensor(tensor.ptr())) throw py::type_error("expected a torch.Tensor");
  const at::Tensor& value = tensor_of(tensor.ptr());
  c10::DispatchKeySet set = value.unsafeGetTensorImpl()->key_set();
  if (!keys.is_none()) set = c10::DispatchKeySet(c10::DispatchKeySet::RAW, keys.cast<uint64_t>());
  return py::make_tuple(DispatchState().apply(set), static_cast<int>(c10::typeMetaToScalarType(value.dtype())),
                        static_cast<int>(value.device().index()), value.requires_grad());
}

// Keeps what make() returns, called in the dispatch state in which the probe will be asked: torch's guards remember
// the state that they were made in.
void set_visibility_probe(const py::function& make) {
  c10::impl::ForceDispatchKeyGuard no_modes(c10::DispatchKeySet{}, c10::DispatchKeySet{});
  PyObject* probe = make().release().ptr();
  Py_XSETREF(visibility_probe, probe);
}

py::object object_at(uint64_t address) {
  return py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(address));
}

py::tuple as_tuple(const Counts& counts) {
  return py::make_tuple(counts.checks, counts.hits, counts.misses, counts.python_callbacks);
}

}  // namespace

// Asking a guard of torch's own is the only way to read this thread-local from outside of libtorch_python. The probe
// expects an empty key set and is shown {Python}: it passes exactly when Python keys are hidden. Its answer must not
// depend on what else this thread includes or excludes.
bool python_keys_are_visible() {
  if (visibility_probe == nullptr) return true;
  c10::impl::ForceDispatchKeyGuard no_modes(c10::DispatchKeySet{}, c10::DispatchKeySet{});
  PyObject* hidden = PyObject_CallNoArgs(visibility_probe);
  if (hidden == nullptr) {
    PyErr_Clear();
    return true;
  }
  Py_DECREF(hidden);
  return hidden != Py_True;
}

}  // namespace unified_guards

PYBIND11_MODULE(_C, m) {
  using namespace unified_guards;
  using TorchFunctionTLS = at::impl::PythonTorchFunctionTLS;
  m.doc() = "The native checker of unified_guards.";
  cpython::self_test();
  m.attr("TORCH_VERSION") = UG_TORCH_VERSION;
  m.attr("OPS") = ops();
  m.attr("DICT_SLOTS") = cpython::layouts_known;

  py::class_<Checker, std::shared_ptr<Checker>>(m, "Checker", "A lowered GuardSet and its callable.")
      .def(py::init(&make_checker), py::arg("rows"), py::arg("oracle") = py::none())
      .def("callable",
           [](std::shared_ptr<Checker> self) {
             PyObject* function = make_callable(std::move(self));
             if (function == nullptr) throw py::error_already_set();
             return py::reinterpret_steal<py::object>(function);
           })
      .def(
          "check", [](Checker& self, const py::dict& locals) { return self.program.evaluate(locals.ptr()); },
          py::arg("locals"))
      .def_property_readonly("counts", [](const Checker& self) { return as_tuple(self.program.counts); })
      .def_property_readonly("nbytes", [](const Checker& self) { return self.program.bytes(); })
      .def_property_readonly("length", [](const Checker& self) { return self.program.code().size(); })
      .def_property_readonly("last_failure", [](const Checker& self) -> py::object {
        const int64_t at = self.program.last_failure();
        if (at < 0) return py::none();
        return py::int_(at);
      });
  m.def("counts", [] { return as_tuple(total_counts); });
  m.def(
      "apply_dispatch_state",
      [](uint64_t keys) { return DispatchState().apply(c10::DispatchKeySet(c10::DispatchKeySet::RAW, keys)); },
      py::arg("keys"));
  m.def("torch_function_state", [] { return static_cast<int>(TorchFunctionTLS::get_disabled_state()); });
  m.def(
      "set_torch_function_state",
      [](int state) { TorchFunctionTLS::set_disabled_state(static_cast<at::impl::TorchFunctionDisabledState>(state)); },
      py::arg("state"));
  m.def("tensor_facts", &tensor_facts, py::arg("tensor"), py::arg("keys"));
  m.def("object_at", &object_at, py::arg("address"));
  m.def("python_keys_are_visible", &python_keys_are_visible);
  m.def("set_visibility_probe", &set_visibility_probe, py::arg("make"));
}
